"""What a device does with honest trust messages, odd clocks and disks that fail."""

from __future__ import annotations

import pytest

from agent.bundle.manifest import MAX_MANIFEST_BYTES
from agent.bundle.trust import Policy, TargetInfo, Trust
from agent.bundle.trustmessage import encode, parse
from agent.errors import ExpiredError, ManifestError, SignatureError, StoreError
from tests.fakes.tufrepository import (
    DAY,
    MANIFEST,
    NOW,
    PATH,
    MemoryStore,
    TufRepository,
    key,
    target,
)

IN_1970 = 3600.0
IN_2106 = 4_294_967_296.0


class Device:
    """A device: its root, its store, and a clock that shows `time`."""

    def __init__(self, anchor: bytes, time: float = NOW) -> None:
        self.anchor = anchor
        self.store = MemoryStore()
        self.time = time
        self.restart()

    def restart(self) -> None:
        self.trust = Trust(self.anchor, self.store, lambda: self.time)


@pytest.fixture
def repo():
    return TufRepository()


@pytest.fixture
def device(repo):
    return Device(repo.anchor)


def ids(signers):
    return [signer.public_key.keyid for signer in signers]


def test_an_accepted_message_says_which_bundles_there_are_and_who_may_do_what(repo, device):
    repo.targets.unrecognized_fields["x-vigia-policy"] = {"approvals": 2}
    device.trust.refresh(repo.publish())
    assert device.trust.target(PATH) == TargetInfo(target().hashes["sha256"], len(MANIFEST), 1)
    keys, threshold = device.trust.director_keys()
    assert [k.keyid for k in keys] == ids(repo.keys["director"])
    assert threshold == 1
    keys, threshold = device.trust.operator_keys()
    assert [k.keyid for k in keys] == ids(repo.keys["operators"])
    assert threshold == 1
    assert device.trust.policy() == Policy(approvals=2)


def test_nothing_is_known_before_the_first_message(device):
    assert not device.trust.ready
    for ask in (
        device.trust.director_keys,
        device.trust.operator_keys,
        device.trust.policy,
        device.trust.check_fresh,
        lambda: device.trust.target(PATH),
    ):
        with pytest.raises(SignatureError, match="no trust metadata"):
            ask()


def test_what_was_accepted_is_there_after_a_restart_without_a_message(repo, device):
    device.trust.refresh(repo.publish())
    device.restart()
    assert device.trust.ready
    assert device.trust.target(PATH).release_counter == 1


def test_no_policy_asks_for_no_approvals(repo, device):
    device.trust.refresh(repo.publish())
    assert device.trust.policy() == Policy(approvals=0)


def test_without_operators_there_are_no_keys_that_could_have_signed(repo, device):
    del repo.targets.delegations.roles["operators"]
    device.trust.refresh(repo.publish())
    assert device.trust.operator_keys() == ((), 1)


def test_a_bundle_that_is_withdrawn_is_known_no_more(repo, device):
    device.trust.refresh(repo.publish())
    del repo.targets.targets[PATH]
    device.trust.refresh(repo.publish())
    with pytest.raises(SignatureError, match="have not signed"):
        device.trust.target(PATH)


def test_director_and_operators_follow_the_newest_targets(repo, device):
    device.trust.refresh(repo.publish())
    repo.set_directors([key("another director")])
    device.trust.refresh(repo.publish())
    assert [k.keyid for k in device.trust.director_keys()[0]] == ids(repo.keys["director"])


def test_the_message_that_was_accepted_may_come_again_also_when_it_is_over(repo, device):
    message = repo.publish()
    device.trust.refresh(message)
    device.time += 400 * DAY
    device.trust.refresh(message)
    device.restart()
    device.trust.refresh(message)
    assert device.store.saves == 1


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_device_whose_metadata_is_over_can_still_refresh(repo, device, role):
    """As aktualizr could not: its issue 1185."""
    device.trust.refresh(repo.publish())
    device.time = repo.now = NOW + {"timestamp": 8, "snapshot": 31}.get(role, 366) * DAY
    device.restart()
    assert device.trust.target(PATH).release_counter == 1
    if role in ("root", "targets"):
        repo.add_root()
    device.trust.refresh(repo.publish())
    assert device.store.saves == 2
    device.trust.check_fresh()


def test_many_roots_later_a_device_finds_its_way(repo, device):
    for number in range(5):
        repo.now += 300 * DAY
        repo.set_keys("root", [key(f"root {number} {n}") for n in range(3)], 2)
        repo.add_root()
    device.time = repo.now
    device.trust.refresh(repo.publish())
    device.restart()
    assert device.trust.target(PATH).release_counter == 1


def test_a_device_that_is_enrolled_late_begins_with_a_later_root(repo):
    repo.add_root()
    device = Device(repo.roots[1])
    repo.add_root()
    device.trust.refresh(repo.publish())
    assert set(device.store.files) == {
        "2.root.json",
        "3.root.json",
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
    }
    device.restart()
    assert device.trust.ready


def test_enrolling_anew_forgets_what_another_fleet_signed(repo, device):
    device.trust.refresh(repo.publish())
    other = TufRepository(name="other")
    device.anchor = other.anchor
    device.restart()
    assert not device.trust.ready
    device.trust.refresh(other.publish())
    assert [k.keyid for k in device.trust.director_keys()[0]] == ids(other.keys["director"])


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_role_that_is_over_is_not_accepted(repo, device, role):
    repo.life[role] = -1
    if role == "root":
        repo.add_root()
    with pytest.raises(ExpiredError, match=role):
        device.trust.refresh(repo.publish())
    assert device.store.saves == 0


def test_expiry_is_judged_at_acceptance_and_never_again(repo, device):
    device.trust.refresh(repo.publish())
    for device.time in (IN_2106, IN_1970, NOW):
        device.restart()
        assert device.trust.target(PATH).release_counter == 1
        assert device.trust.director_keys()[0]
        assert device.trust.policy() == Policy(0)


def test_a_clock_that_jumps_forth_and_back_locks_nobody_out(repo, device):
    device.time = IN_2106
    with pytest.raises(ExpiredError, match="clock"):
        device.trust.refresh(repo.publish())
    device.time = NOW
    device.trust.refresh(repo.publish())
    device.time = IN_2106
    with pytest.raises(ExpiredError):
        device.trust.refresh(repo.publish())
    device.time = NOW
    device.trust.refresh(repo.publish())
    assert device.store.saves == 2
    assert device.trust.now() == NOW


def test_a_clock_at_1970_is_not_believed_below_what_offline_keys_have_signed(repo, device):
    """The broker replays what was current long before this device was enrolled."""
    old = repo.publish()
    repo.now += 60 * DAY
    repo.add_root()
    late = Device(repo.roots[1], time=IN_1970)
    assert late.trust.now() == NOW + 60 * DAY
    with pytest.raises(ExpiredError, match="timestamp"):
        late.trust.refresh(encode({**parse(old), "2.root.json": repo.roots[1]}))


def test_the_time_floor_outlives_a_restart(repo, device):
    device.time = IN_1970
    repo.now += 60 * DAY
    device.trust.refresh(repo.publish())
    assert device.store.floor == NOW + 60 * DAY
    device.store.files = {}
    device.restart()
    assert device.trust.now() == NOW + 60 * DAY


def test_a_floor_that_was_not_saved_after_the_metadata_is_found_again(repo, device):
    device.time = IN_1970
    repo.now += 60 * DAY
    device.store.failing = {"raise_time_floor"}
    with pytest.raises(StoreError):
        device.trust.refresh(repo.publish())
    device.restart()
    assert device.trust.now() == NOW + 60 * DAY


def test_without_a_clock_the_time_is_that_of_the_newest_timestamp(repo, device):
    device.time = IN_1970
    device.trust.refresh(repo.publish())
    repo.now += DAY
    device.trust.refresh(repo.publish(same=["targets"]))
    assert device.trust.now() == NOW + DAY
    assert device.store.floor == NOW


def test_a_right_clock_counts_more_than_what_was_signed_before(repo, device):
    device.trust.refresh(repo.publish())
    device.time += 5.5
    assert device.trust.now() == NOW + 5.5


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_an_update_may_not_begin_with_metadata_that_is_over(role):
    repo = TufRepository()
    repo.life = dict.fromkeys(repo.life, 400 * DAY) | {role: 3 * DAY}
    repo.add_root()
    device = Device(repo.anchor)
    device.trust.refresh(repo.publish())
    device.time = NOW + 3 * DAY - 1
    device.trust.check_fresh()
    device.time = NOW + 3 * DAY
    with pytest.raises(ExpiredError, match=f"{role} ended 0 s ago and nothing newer"):
        device.trust.check_fresh()
    assert device.trust.target(PATH).release_counter == 1


def test_what_cannot_be_saved_is_not_accepted(repo, device):
    device.trust.refresh(repo.publish())
    before = dict(device.store.files)
    repo.targets.targets[PATH] = target(counter=2)
    newer = repo.publish()
    device.store.failing = {"save"}
    with pytest.raises(StoreError):
        device.trust.refresh(newer)
    assert device.store.files == before
    assert device.trust.target(PATH).release_counter == 1
    device.store.failing = set()
    device.restart()
    device.trust.refresh(newer)
    assert device.trust.target(PATH).release_counter == 2


def test_a_set_is_saved_whole_and_at_once(repo, device):
    device.trust.refresh(repo.publish())
    repo.add_root()
    device.trust.refresh(repo.publish())
    assert device.store.saves == 2
    assert set(device.store.files) == {
        "1.root.json",
        "2.root.json",
        "timestamp.json",
        "2.snapshot.json",
        "2.targets.json",
    }


@pytest.mark.parametrize(
    "name", ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
)
@pytest.mark.parametrize("damage", ["lost", "torn", "altered"])
def test_damage_to_what_is_kept_is_found_and_nothing_is_forgotten_for_it(
    repo, device, name, damage
):
    repo.add_root()
    device.trust.refresh(repo.publish())
    data = device.store.files.pop(name)
    if damage != "lost":
        device.store.files[name] = data[:-9] if damage == "torn" else data.replace(b'"1', b'"2', 1)
        assert device.store.files[name] != data
    with pytest.raises(StoreError, match=r"damaged|cannot be"):
        device.restart()


def test_a_store_that_cannot_be_read_is_said_to_be_so(repo):
    store = MemoryStore()
    store.failing = {"load"}
    with pytest.raises(StoreError, match="disk"):
        Trust(repo.anchor, store, lambda: NOW)


def test_no_temporary_folder_is_a_matter_of_the_store(repo, device, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="temporary folder"):
        device.trust.refresh(repo.publish())


def test_no_trace_stays_in_the_temporary_folder(repo, device, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    device.trust.refresh(repo.publish())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "policy",
    [{"approvals": -1}, {"approvals": 17}, {"approvals": True}, {"approvals": "1"}, {}, [1], None,
     {"approvals": 1, "more": 1}],
)  # fmt: skip
def test_a_policy_that_is_not_understood_is_not_passed_over(repo, device, policy):
    repo.targets.unrecognized_fields["x-vigia-policy"] = policy
    with pytest.raises(ManifestError, match="policy"):
        device.trust.refresh(repo.publish())


@pytest.mark.parametrize("counter", [-1, 2**64, True, "1", None])
def test_a_target_without_a_release_counter_is_none(repo, device, counter):
    repo.targets.targets[PATH] = target(counter=counter)
    device.trust.refresh(repo.publish())
    with pytest.raises(ManifestError, match="release_counter"):
        device.trust.target(PATH)


def test_a_target_that_is_no_manifest_is_refused(repo, device):
    repo.targets.targets[PATH] = target(b"x" * (MAX_MANIFEST_BYTES + 1))
    other = target()
    other.hashes = {"sha512": "0" * 128}
    repo.targets.targets["other"] = other
    device.trust.refresh(repo.publish())
    for path in (PATH, "other"):
        with pytest.raises(ManifestError, match="not a manifest's"):
            device.trust.target(path)


def test_a_root_that_does_not_sign_itself_is_no_beginning(repo):
    repo.add_root([key("nobody")])
    with pytest.raises(SignatureError):
        Trust(repo.roots[-1], MemoryStore(), lambda: NOW)
    with pytest.raises(ManifestError):
        Trust(b"{}", MemoryStore(), lambda: NOW)
    repo.publish()
    with pytest.raises(ManifestError, match="root"):
        Trust(repo.files["timestamp.json"], MemoryStore(), lambda: NOW)


def test_a_claim_to_be_signed_after_its_own_end_proves_no_time(repo, device):
    repo.publish()
    repo.targets.unrecognized_fields["x-vigia-issued"] = int(NOW + 365 * DAY)
    device.trust.refresh(repo.publish(same=["targets"]))
    assert device.trust.now() == NOW
