from __future__ import annotations

import json
import stat

import pytest

from agent.bundle import trustmessage
from agent.bundle.manifest import digest_of, parse_manifest
from agent.bundle.trust import Policy
from agent.errors import ManifestError, RollbackError, SignatureError
from engines.filelock import folder_lock
from fleet import metadatafolder
from fleet.errors import FleetError
from fleet.signing import KeySet, add_signature
from tests.fakes.tufhouse import House, key_set, manifest
from tests.fakes.tufrepository import DAY, NOW, TufRepository, key


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def founded(house):
    return house.found()


def ids(signers):
    return [signer.public_key.keyid for signer in signers]


def target_of(data: bytes) -> str:
    return parse_manifest(data).target


# The beginning


def test_a_device_accepts_what_a_new_fleet_publishes(founded):
    device = founded.device()
    device.refresh(founded.repository.message())
    assert [k.keyid for k in device.director_keys()[0]] == ids([founded.director])
    assert [k.keyid for k in device.operator_keys()[0]] == ids(founded.operators)
    assert device.policy() == Policy(0)


def test_nothing_is_published_before_it_was_signed_and_published(house):
    requests = house.stage_first()
    for ask in (house.repository.message, house.repository.anchor, house.repository.expiries):
        with pytest.raises(FleetError, match="nothing is published"):
            ask()
    with pytest.raises(FleetError, match="root version 1 needs 2 more of the root keys"):
        house.repository.complete()
    with pytest.raises(FleetError, match="needs 2 more"):
        house.repository.publish_online(house.online)
    house.sign(requests)
    assert house.repository.complete() == ["root", "targets"]
    with pytest.raises(FleetError, match="nothing is published"):
        house.repository.message()
    assert house.repository.publish_online(house.online)
    assert house.repository.pending() == []


def test_an_empty_folder_is_no_repository(house):
    with pytest.raises(FleetError, match="create one first"):
        house.repository.renew_targets()
    with pytest.raises(FleetError, match="nothing is pending"):
        house.repository.complete()
    assert house.repository.pending() == []


def test_a_second_repository_in_the_same_folder_is_refused(founded):
    with pytest.raises(FleetError, match="already"):
        founded.stage_first()


def test_a_beginning_that_was_not_completed_can_be_begun_again(house):
    house.stage_first()
    house.found()
    assert house.repository.published().root.version == 1


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director"])
@pytest.mark.parametrize("offline", ["root", "release"])
def test_an_online_key_may_not_be_an_offline_key_too(house, role, offline):
    setattr(house, role, getattr(house, offline)[0])
    with pytest.raises(FleetError, match=f"one of the {role} keys is a root or release key"):
        house.stage_first()


def test_a_key_that_stands_twice_is_not_two_people(house):
    with pytest.raises(FleetError, match="stands twice"):
        key_set([house.root[0], house.root[0]], 2)


def test_the_same_key_under_another_name_is_not_two_people(house):
    twin = key("root0")
    twin.public_key.keyid = "another"
    with pytest.raises(FleetError, match="stands twice"):
        KeySet((house.root[0].public_key, twin.public_key), 2)


@pytest.mark.parametrize("threshold", [0, 4, -1])
def test_a_threshold_that_cannot_be(house, threshold):
    with pytest.raises(FleetError, match="cannot be"):
        key_set(house.root, threshold)


# Bundles


def test_a_bundle_exists_once_enough_release_keys_have_signed_it(founded):
    data = manifest()
    request = founded.repository.stage_target(data)
    device = founded.device()
    add_signature(request, founded.release[0])
    with pytest.raises(FleetError, match="targets version 2 needs 1 more of the release keys"):
        founded.repository.complete()
    assert not founded.repository.publish_online(founded.online)
    add_signature(request, founded.release[1])
    assert founded.repository.complete() == ["targets"]
    device.refresh(founded.repository.message())
    with pytest.raises(SignatureError):
        device.target(target_of(data))
    assert founded.repository.publish_online(founded.online)
    device.refresh(founded.repository.message())
    assert device.target(target_of(data)).sha256 == digest_of(data)
    assert founded.repository.has_target(data)


def test_one_key_holder_who_signs_twice_is_still_one(founded):
    request = founded.repository.stage_target(manifest())
    first = add_signature(request, founded.release[0])
    first.with_name("targets.again.sig.json").write_bytes(first.read_bytes())
    with pytest.raises(FleetError, match="needs 1 more"):
        founded.repository.complete()


def test_bundles_that_are_staged_together_are_signed_together(founded):
    one, two = manifest("1", 1), manifest("2", 2)
    request = founded.repository.stage_target(one)
    add_signature(request, founded.release[0])
    assert founded.repository.stage_target(two) == request
    add_signature(request, founded.release[1])
    # The first signature was over one bundle, and is none over two.
    with pytest.raises(FleetError, match="needs 1 more"):
        founded.repository.complete()
    add_signature(request, founded.release[0])
    founded.repository.complete()
    assert founded.repository.has_target(one)
    assert founded.repository.has_target(two)


def test_staging_the_same_again_keeps_the_signatures(founded):
    for _ in range(2):
        request = founded.repository.stage_target(manifest())
        add_signature(request, founded.release[0])
        founded.now += 60
    founded.repository.stage_target(manifest())
    assert len(founded.repository.missing()) == 1


def test_what_is_released_is_not_released_again_nor_replaced(founded):
    founded.release_bundle()
    with pytest.raises(FleetError, match="released already"):
        founded.repository.stage_target(manifest())
    with pytest.raises(FleetError, match="version of its own"):
        founded.repository.stage_target(manifest("1", 2))


def test_release_counters_rise_within_a_family(founded):
    founded.release_bundle("1", 5)
    for counter in (4, 5):
        with pytest.raises(FleetError, match="must be above"):
            founded.repository.stage_target(manifest("2", counter))
    founded.repository.stage_target(manifest("2", 6))
    founded.repository.stage_target(manifest("1", 1, "other"))


def test_what_is_no_manifest_is_not_staged(founded):
    with pytest.raises(ManifestError):
        founded.repository.stage_target(b"{}")


def test_a_withdrawn_bundle_is_gone_from_devices(founded):
    device, path = founded.device(), target_of(founded.release_bundle())
    device.refresh(founded.repository.message())
    founded.publish([founded.repository.withdraw_target(path)])
    device.refresh(founded.repository.message())
    with pytest.raises(SignatureError):
        device.target(path)
    with pytest.raises(FleetError, match="not released"):
        founded.repository.withdraw_target(path)


# Who may assign, command and approve


def test_director_keys_are_replaced_by_the_release_keys(founded):
    device = founded.device()
    device.refresh(founded.repository.message())
    new = key("new director")
    founded.publish([founded.repository.set_directors([new.public_key])])
    device.refresh(founded.repository.message())
    assert [k.keyid for k in device.director_keys()[0]] == ids([new])
    with pytest.raises(FleetError, match="give one"):
        founded.repository.set_directors([])
    with pytest.raises(FleetError, match="director keys is a root or release key"):
        founded.repository.set_directors([founded.release[0].public_key])


def test_operators_come_and_go(founded):
    device = founded.device()
    for operators in ([key("carol"), *founded.operators], [], founded.operators[1:]):
        keys = [signer.public_key for signer in operators]
        founded.publish([founded.repository.set_operators(keys)])
        device.refresh(founded.repository.message())
        assert [k.keyid for k in device.operator_keys()[0]] == ids(operators)
        assert [k.keyid for k in device.director_keys()[0]] == ids([founded.director])


def test_the_policy_asks_for_no_more_approvals_than_there_are_operators(founded):
    founded.publish([founded.repository.set_policy(2)])
    device = founded.device()
    device.refresh(founded.repository.message())
    assert device.policy() == Policy(2)
    with pytest.raises(FleetError, match="only 2 operators"):
        founded.repository.set_policy(3)
    for approvals in (-1, 17):
        with pytest.raises(FleetError, match="cannot be asked"):
            founded.repository.set_policy(approvals)


def test_changes_of_different_kinds_gather_in_one_request(founded):
    founded.repository.set_policy(1)
    founded.repository.set_operators([founded.operators[0].public_key])
    founded.publish([founded.repository.stage_target(manifest())])
    published = founded.repository.published()
    assert published.policy == Policy(1)
    assert list(published.targets.targets) == [target_of(manifest())]
    assert published.targets.version == 2


# Release keys


def test_a_revoked_release_key_signs_nothing_any_more(founded):
    device = founded.device()
    founded.release_bundle()
    device.refresh(founded.repository.message())
    thief, kept = founded.release
    founded.release = [kept, key("new release")]
    requests = founded.repository.revoke_release_key(
        thief.public_key.keyid, founded.release[1].public_key
    )
    assert [path.name for path in requests] == ["root.json", "targets.json"]
    with pytest.raises(FleetError, match="does not need the key"):
        add_signature(requests[1], thief)
    # The root alone would leave devices without valid targets: it waits for them.
    founded.sign(requests[:1])
    with pytest.raises(FleetError, match="targets version 3 needs 2 more"):
        founded.repository.complete()
    founded.publish(requests)
    device.refresh(founded.repository.message())
    assert device.target(target_of(manifest())).release_counter == 1
    with pytest.raises(FleetError, match="does not need the key"):
        add_signature(founded.repository.renew_targets(), thief)


def test_a_release_key_may_go_without_a_replacement_where_enough_stay(founded):
    third = key("third release")
    assert len(founded.publish(founded.repository.add_release_key(third.public_key)).release) == 2
    founded.release.append(third)
    requests = founded.repository.revoke_release_key(founded.release[2].public_key.keyid)
    # The two that stay have signed the targets that there are.
    assert [path.name for path in requests] == ["root.json"]
    founded.publish(requests)
    assert len(founded.repository.published().root.roles["targets"].keyids) == 2


def test_a_release_key_that_is_needed_must_be_replaced(founded):
    with pytest.raises(FleetError, match="2 of 1 keys cannot be"):
        founded.repository.revoke_release_key(founded.release[0].public_key.keyid)
    with pytest.raises(FleetError, match="no release key"):
        founded.repository.revoke_release_key("0" * 64)


def test_a_bundle_that_was_staged_before_is_signed_by_the_new_keys(founded):
    request = founded.repository.stage_target(manifest())
    old = founded.release
    add_signature(request, old[0])
    founded.release = [key("new 1"), key("new 2")]
    requests = founded.repository.rotate_root(release=key_set(founded.release, 2))
    with pytest.raises(FleetError, match="does not need"):
        add_signature(request, old[1])
    founded.publish(requests)
    assert founded.repository.has_target(manifest())


# Root


@pytest.mark.parametrize("who", ["old", "new"])
def test_a_new_root_needs_the_old_keys_and_the_new(founded, who):
    device = founded.device()
    device.refresh(founded.repository.message())
    old, founded.root = founded.root, [key(f"new root {n}") for n in range(3)]
    (request,) = founded.repository.rotate_root(root=key_set(founded.root, 2))
    first, second = (old, founded.root) if who == "old" else (founded.root, old)
    for signer in first:
        add_signature(request, signer)
    with pytest.raises(FleetError, match="needs 2 more of the") as raised:
        founded.repository.complete()
    assert all(signer.public_key.keyid[:16] in str(raised.value) for signer in second)
    for signer in second[:2]:
        add_signature(request, signer)
    assert founded.repository.complete() == ["root"]
    founded.repository.publish_online(founded.online)
    device.refresh(founded.repository.message())
    founded.publish(founded.repository.rotate_root())
    device.refresh(founded.repository.message())
    assert founded.repository.published().root.version == 3


def test_a_device_that_slept_through_many_roots_follows_them(founded):
    device = founded.device()
    device.refresh(founded.repository.message())
    for number in range(4):
        founded.now += 200 * DAY
        old, new = founded.root, [key(f"root {number} {n}") for n in range(3)]
        requests = founded.repository.rotate_root(root=key_set(new, 2))
        for signer in old:
            add_signature(requests[0], signer)
        founded.root = new
        founded.publish(requests)
        founded.publish([founded.repository.renew_targets()])
    device.refresh(founded.repository.message())
    device.check_fresh()


def test_a_fleet_recovers_from_stolen_online_keys(founded):
    """The thief has shown devices the highest versions; the controller knows nothing of it."""
    device = founded.device()
    device.refresh(founded.repository.message())
    device.refresh(_fast_forward(founded))
    founded.now += 4 * DAY
    founded.repository.publish_online(founded.online)
    with pytest.raises(RollbackError):
        device.refresh(founded.repository.message())
    founded.snapshot, founded.timestamp = key("new snapshot"), key("new timestamp")
    founded.publish(
        founded.repository.rotate_root(
            snapshot=key_set([founded.snapshot]), timestamp=key_set([founded.timestamp])
        )
    )
    device.refresh(founded.repository.message())
    device.check_fresh()


def _fast_forward(house: House) -> bytes:
    files = dict(house.repository.published().files)
    thief = TufRepository()
    thief.files = files
    thief.roots = [files["1.root.json"]]
    thief.snapshot.meta = house.repository.published().snapshot.meta
    thief.snapshot.version = thief.timestamp.version = 2**40
    snapshot = thief.sign(thief.snapshot, [house.snapshot])
    thief.timestamp.snapshot_meta.version = 2**40
    timestamp = thief.sign(thief.timestamp, [house.timestamp])
    del files["1.snapshot.json"]
    return trustmessage.encode({
        **files, f"{2**40}.snapshot.json": snapshot, "timestamp.json": timestamp
    })  # fmt: skip


# Online keys


def test_timestamp_and_snapshot_are_renewed_before_they_end_and_not_sooner(founded):
    device = founded.device()
    versions = []
    for _ in range(40):
        founded.now += DAY
        founded.repository.publish_online(founded.online)
        device.refresh(founded.repository.message())
        device.check_fresh()
        published = founded.repository.published()
        versions.append((published.timestamp.version, published.snapshot.version))
    # Every 4 days, where 3.5 are left; every 16, where 15 are left.
    assert versions[-1] == (11, 3)


def test_renewing_needs_the_keys_of_both_roles(founded):
    founded.repository.stage_target(manifest())
    founded.sign(founded.repository.pending())
    founded.repository.complete()
    before = founded.repository.message()
    for signers in ([], [founded.snapshot], [founded.timestamp], [founded.director, key("x")]):
        with pytest.raises(FleetError, match="needs 1 of its keys, 0 were given"):
            founded.repository.publish_online(signers)
    assert founded.repository.message() == before
    founded.repository.publish_online([key("x"), *founded.online])
    assert founded.repository.message() != before


@pytest.mark.parametrize("role", ["root", "targets"])
def test_offline_roles_that_have_ended_are_not_published(founded, role):
    founded.now += 200 * DAY
    other = "targets" if role == "root" else "root"
    founded.publish(
        [founded.repository.renew_targets()]
        if other == "targets"
        else founded.repository.rotate_root()
    )
    founded.now += 200 * DAY
    with pytest.raises(FleetError, match=f"{role} version 1 has ended"):
        founded.repository.publish_online(founded.online)


def test_expiries_are_told(founded):
    assert founded.repository.expiries() == {
        "root": NOW + 365 * DAY,
        "targets": NOW + 365 * DAY,
        "snapshot": NOW + 30 * DAY,
        "timestamp": NOW + 7 * DAY,
    }


def test_a_set_too_large_for_a_message_does_not_get_out(founded, monkeypatch):
    before = founded.repository.message()
    request = founded.repository.stage_target(manifest())
    founded.sign([request])
    founded.repository.complete()
    monkeypatch.setitem(trustmessage.ROLE_BYTES, "targets", 100)
    with pytest.raises(ManifestError, match="targets"):
        founded.repository.publish_online(founded.online)
    monkeypatch.undo()
    assert founded.repository.message() == before


# Files


def test_files_are_for_their_owner_and_nothing_is_left_over(founded):
    for number in range(1, 4):
        founded.release_bundle(str(number), number)
        founded.publish(founded.repository.rotate_root())
    paths = [founded.folder, *founded.folder.rglob("*")]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert sorted(path.name for path in (founded.folder / "metadata").iterdir()) == [
        "1.root.json",
        "2.root.json",
        "3.root.json",
        "4.root.json",
        "4.targets.json",
        "7.snapshot.json",
        "accepted.json",
        "timestamp.json",
    ]
    assert list((founded.folder / "pending").iterdir()) == []


def test_two_commands_do_not_change_it_at_once(founded, monkeypatch):
    monkeypatch.setattr(metadatafolder, "LOCK_TIMEOUT_S", 0.05)
    with (
        folder_lock(founded.folder, 1),
        pytest.raises(FleetError, match="another process"),
    ):
        founded.opened().renew_targets()
    founded.opened().renew_targets()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"root":"x","targets":1}', b"[]"])
def test_a_damaged_folder_is_said_to_be_so(founded, content):
    (founded.folder / "metadata" / "accepted.json").write_bytes(content)
    with pytest.raises(FleetError, match="damaged"):
        founded.repository.renew_targets()


@pytest.mark.parametrize("name", ["1.root.json", "1.targets.json", "1.snapshot.json"])
def test_a_missing_file_is_named(founded, name):
    (founded.folder / "metadata" / name).unlink()
    with pytest.raises(FleetError, match=f"{name} is missing"):
        founded.repository.message()


def test_a_published_file_that_was_altered_does_not_get_out(founded):
    path = founded.folder / "metadata" / "1.targets.json"
    metadata = json.loads(path.read_bytes())
    metadata["signed"]["version"] = 2
    path.write_text(json.dumps(metadata))
    with pytest.raises(SignatureError, match="targets"):
        founded.repository.message()


def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path):
    (tmp_path / "tuf").write_text("a file")
    with pytest.raises(FleetError, match="cannot be used"):
        House(tmp_path).stage_first()
