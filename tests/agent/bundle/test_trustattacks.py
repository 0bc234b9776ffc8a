"""Attacks on the trust message. The attacker is the broker, or whoever sends in its place.

Each leaves the device with what it had accepted, and able to accept the next honest message.
"""

from __future__ import annotations

import json

import pytest
from tuf.api.metadata import MetaFile, Targets

from agent.bundle.trust import Trust
from agent.bundle.trustmessage import MAX_MESSAGE_BYTES, ROLE_BYTES, encode, parse
from agent.errors import ExpiredError, ManifestError, RollbackError, SignatureError
from tests.fakes.tufrepository import DAY, NOW, PATH, MemoryStore, TufRepository, key, target

EVIL = "models/evil/1/manifest.json"
HIGHEST = 2**40


@pytest.fixture
def repo():
    return TufRepository()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def trust(repo, store):
    """Has accepted one honest message."""
    trust = Trust(repo.anchor, store, lambda: repo.now)
    trust.refresh(repo.publish())
    return trust


@pytest.fixture(autouse=True)
def _nothing_is_lost(repo, store):
    yield
    again = Trust(repo.anchor, store, lambda: repo.now)
    assert again.target(PATH).release_counter >= 1
    with pytest.raises(SignatureError):
        again.target(EVIL)


def refused(trust, store, message, error, match=None):
    """The message is refused, and nothing of it is kept."""
    before = dict(store.files)
    with pytest.raises(error, match=match):
        trust.refresh(message)
    assert store.files == before


# Forged


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
@pytest.mark.parametrize("hashes", [True, False])
def test_forged_signatures(repo, trust, store, role, hashes):
    thieves = [key("thief"), key("second thief")]
    message = repo.publish(signers={role: thieves}, hashes=hashes)
    refused(trust, store, message, SignatureError, role)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_no_signatures_at_all(repo, trust, store, role):
    refused(trust, store, repo.publish(signers={role: []}), SignatureError, role)


@pytest.mark.parametrize("hashes", [True, False])
def test_content_altered_after_it_was_signed(repo, trust, store, hashes):
    files = parse(repo.publish(hashes=hashes))
    name = "2.targets.json"
    evil = {**files, name: files[name].replace(PATH.encode(), EVIL.encode())}
    refused(trust, store, encode(evil), ManifestError if hashes else SignatureError)


def test_the_signature_of_one_role_on_another(repo, trust, store):
    """A timestamp key signs a snapshot: it is online too, but it is not its right."""
    signers = {"snapshot": repo.keys["timestamp"]}
    refused(trust, store, repo.publish(signers=signers), SignatureError, "snapshot")


@pytest.mark.parametrize("role", ["root", "targets", "snapshot"])
def test_one_role_in_the_place_of_another(repo, trust, store, role):
    data = repo.files[f"1.{role}.json"]
    repo.publish()
    message = repo.message(**{"timestamp.json": data})
    refused(trust, store, message, ManifestError, "timestamp")


# Thresholds and stolen keys


@pytest.mark.parametrize("hashes", [True, False])
def test_one_of_two_release_keys(repo, trust, store, hashes):
    repo.targets.targets[EVIL] = target()
    message = repo.publish(signers={"targets": repo.keys["targets"][:1]}, hashes=hashes)
    refused(trust, store, message, SignatureError, "targets was signed by 1/2")


def test_one_release_key_that_signs_twice(repo, trust, store):
    files = parse(repo.publish(signers={"targets": repo.keys["targets"][:1]}, hashes=False))
    metadata = json.loads(files["2.targets.json"])
    metadata["signatures"] *= 2
    message = encode({**files, "2.targets.json": json.dumps(metadata).encode()})
    refused(trust, store, message, ManifestError, "Multiple signatures")


def test_a_release_key_and_a_stranger(repo, trust, store):
    signers = {"targets": [repo.keys["targets"][0], key("stranger")]}
    refused(trust, store, repo.publish(signers=signers), SignatureError, "1/2")


@pytest.mark.parametrize("role", ["director", "operators", "snapshot", "timestamp", "root"])
def test_stolen_keys_of_other_roles_sign_no_bundle(repo, trust, store, role):
    repo.targets.targets[EVIL] = target()
    message = repo.publish(signers={"targets": repo.keys[role]})
    refused(trust, store, message, SignatureError, "targets was signed by 0/2")


def test_a_director_role_with_bundles_has_no_place_in_a_message(repo, trust, store):
    """Thieves of all online keys sign a role of their own making, as delegations in TUF have it."""
    evil = repo.sign(Targets(1, targets={EVIL: target(path=EVIL)}), repo.keys["director"])
    repo.snapshot.meta["director.json"] = MetaFile(1)
    repo.publish()
    files = {**parse(repo.message()), "1.director.json": evil}
    texts = {name: data.decode() for name, data in files.items()}
    message = json.dumps({"schema": "vigia.trust/1", "files": texts}).encode()
    refused(trust, store, message, ManifestError, "no file can be called '1.director.json'")


def test_a_name_that_only_the_director_could_vouch_for_is_no_bundle(trust):
    with pytest.raises(SignatureError, match="have not signed"):
        trust.target("director/manifest.json")


def test_a_revoked_release_key(repo, trust, store):
    revoked, kept = repo.keys["targets"]
    repo.set_keys("targets", [kept, key("new release")])
    repo.add_root()
    refused(trust, store, repo.publish(signers={"targets": [revoked, kept]}), SignatureError, "1/2")
    trust.refresh(repo.publish())
    repo.targets.targets[EVIL] = target()
    refused(trust, store, repo.publish(signers={"targets": [revoked, kept]}), SignatureError, "1/2")
    del repo.targets.targets[EVIL]


def test_a_revoked_director_is_nobody(repo, trust):
    thief = repo.keys["director"][0].public_key.keyid
    repo.set_directors([key("new director")])
    trust.refresh(repo.publish())
    assert thief not in [k.keyid for k in trust.director_keys()[0]]


# Root


def test_a_root_below_its_own_threshold(repo, trust, store):
    repo.add_root(repo.keys["root"][:1])
    refused(trust, store, repo.publish(), SignatureError, "root was signed by 1/2")
    _withdraw_root(repo)


def test_a_root_that_only_the_new_keys_have_signed(repo, trust, store):
    former = repo.keys["root"]
    repo.set_keys("root", [key("thief 1"), key("thief 2")])
    repo.add_root(repo.keys["root"])
    refused(trust, store, repo.publish(), SignatureError, "root was signed by 0/2")
    _withdraw_root(repo, former)


def test_a_root_that_only_the_old_keys_have_signed(repo, trust, store):
    former = repo.keys["root"]
    repo.set_keys("root", [key("new 1"), key("new 2")])
    repo.add_root(former)
    refused(trust, store, repo.publish(), SignatureError, "root was signed by 0/2")
    _withdraw_root(repo, former)


def test_a_gap_in_the_chain_of_roots(repo, trust, store):
    repo.add_root()
    repo.add_root()
    repo.publish()
    message = repo.message(**{"2.root.json": None})
    refused(trust, store, message, ManifestError, "root 2 is missing before root 3")


def test_a_root_under_the_number_of_another(repo, trust, store):
    repo.add_root()
    repo.add_root()
    repo.publish()
    message = repo.message(**{"2.root.json": repo.roots[2], "3.root.json": None})
    refused(trust, store, message, RollbackError, "version 3")


def test_the_newest_root_withheld(repo, trust, store):
    """It revokes a key; the rest of the set is new and would be valid under the old root."""
    repo.add_root()
    repo.publish()
    message = repo.message(**{"2.root.json": None})
    refused(trust, store, message, ManifestError, "belongs to root 2")


def test_a_new_root_beside_a_set_of_before(repo, trust, store):
    """It may have taken the rights of those who signed that set: somebody must be told."""
    repo.add_root()
    refused(trust, store, repo.message(), ManifestError, "belongs to root 1")
    trust.refresh(repo.publish())


def test_an_accepted_root_withheld_later(repo, trust, store):
    """The chain that was accepted counts, whether it is sent again or not."""
    repo.add_root()
    trust.refresh(repo.publish())
    repo.publish()
    trust.refresh(repo.message(**{"2.root.json": None}))
    assert store.files["2.root.json"] == repo.roots[1]


def test_another_root_under_the_number_of_an_accepted_one(repo, trust, store):
    repo.add_root()
    trust.refresh(repo.publish())
    repo.publish()
    repo.root.version -= 1
    repo.set_keys("timestamp", [key("thief")])
    repo.add_root()
    other = repo.roots.pop()
    trust.refresh(repo.message(**{"2.root.json": other}))
    assert store.files["2.root.json"] == repo.roots[1]


def test_a_set_of_before_a_rotation_of_online_keys(repo, trust, store):
    """Thieves of the old keys go on signing with higher versions."""
    old = {role: repo.keys[role] for role in ("snapshot", "timestamp")}
    for role in old:
        repo.set_keys(role, [key(f"new {role}")])
    repo.add_root()
    trust.refresh(repo.publish())
    refused(trust, store, repo.publish(signers=old), SignatureError, "timestamp")


# Replayed, rolled back


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_role_rolled_back(repo, trust, store, role):
    trust.refresh(repo.publish())
    getattr(repo, role).version -= 1
    message = repo.publish(same=[role])
    refused(trust, store, message, RollbackError)


def test_an_older_message_replayed(repo, trust, store):
    old = repo.message()
    trust.refresh(repo.publish())
    refused(trust, store, old, RollbackError, "timestamp version 1 must be >= 2")


def test_a_message_of_before_replayed_to_a_device_that_restarts(repo, trust, store):
    old = repo.message()
    trust.refresh(repo.publish())
    again = Trust(repo.anchor, store, lambda: repo.now)
    refused(again, store, old, RollbackError)


def test_a_message_held_back_until_it_is_over(repo, trust, store):
    message = repo.publish()
    repo.now += 8 * DAY
    refused(trust, store, message, ExpiredError, "timestamp")


def test_a_root_entry_rolled_back_by_the_snapshot(repo, trust, store):
    repo.add_root()
    trust.refresh(repo.publish())
    repo.roots.pop()
    message = repo.publish()
    repo.roots.append(repo.files["2.root.json"])
    refused(trust, store, message, RollbackError, "root.json")


# Mixed


@pytest.mark.parametrize("hashes", [True, False])
def test_the_snapshot_of_one_set_with_the_targets_of_another(repo, trust, store, hashes):
    old = repo.files["1.targets.json"]
    repo.publish(hashes=hashes)
    message = repo.message(**{"2.targets.json": old})
    refused(trust, store, message, ManifestError if hashes else RollbackError)


@pytest.mark.parametrize("hashes", [True, False])
def test_the_timestamp_of_one_set_with_the_snapshot_of_another(repo, trust, store, hashes):
    old = repo.files["1.snapshot.json"]
    repo.publish(hashes=hashes)
    message = repo.message(**{"2.snapshot.json": old})
    refused(trust, store, message, ManifestError if hashes else RollbackError)


def test_a_set_of_another_fleet(trust, store):
    refused(trust, store, TufRepository(name="other").publish(), SignatureError)


def test_two_sets_of_the_same_version(repo, trust, store):
    """Different devices are shown different things; each keeps what it saw first."""
    before = dict(store.files)
    for signed in (repo.timestamp, repo.snapshot, repo.targets):
        signed.version -= 1
    repo.targets.targets[EVIL] = target()
    trust.refresh(repo.publish())
    assert store.files == before
    assert store.saves == 1


# Truncated, endless


@pytest.mark.parametrize("role", ["timestamp", "2.snapshot", "2.targets"])
def test_a_role_left_out(repo, trust, store, role):
    repo.publish()
    refused(trust, store, repo.message(**{f"{role}.json": None}), ManifestError, "missing")


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
@pytest.mark.parametrize("hashes", [True, False])
def test_a_file_truncated(repo, trust, store, name, hashes):
    files = parse(repo.publish(hashes=hashes))
    for length in (0, 1, len(files[name]) // 2, len(files[name]) - 1):
        refused(trust, store, encode({**files, name: files[name][:length]}), ManifestError)


def test_a_message_cut_off_anywhere(repo, trust, store):
    message = repo.publish()
    for length in range(0, len(message), 97):
        refused(trust, store, message[:length], ManifestError)


def test_an_endless_message(trust, store):
    refused(trust, store, b" " * (MAX_MESSAGE_BYTES + 1), ManifestError, "more than")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("2.root.json", "root"),
        ("timestamp.json", "timestamp"),
        ("2.snapshot.json", "snapshot"),
        ("2.targets.json", "targets"),
    ],
)
def test_a_role_over_its_size_though_signed(repo, trust, store, name, role):
    padding = "x" * (ROLE_BYTES[role] + 1)
    getattr(repo, role).unrecognized_fields["padding"] = padding
    if role == "root":
        repo.add_root()
    repo.publish_files()
    files = {name: repo.files[name] for name in repo.names()}
    message = json.dumps(
        {"schema": "vigia.trust/1", "files": {n: d.decode() for n, d in files.items()}}
    ).encode()
    assert len(message) < MAX_MESSAGE_BYTES
    refused(trust, store, message, ManifestError, f"{name} has")
    if role == "root":
        del repo.root.unrecognized_fields["padding"]
        _withdraw_root(repo)


# Fast-forward


def test_versions_set_to_the_highest_by_thieves_are_undone_by_new_keys(repo, trust, store):
    repo.timestamp.version = repo.snapshot.version = HIGHEST
    trust.refresh(repo.publish())
    repo.timestamp.version = repo.snapshot.version = 5
    refused(trust, store, repo.publish(), RollbackError)
    for role in ("snapshot", "timestamp"):
        repo.set_keys(role, [key(f"new {role}")])
    repo.add_root()
    trust.refresh(repo.publish())
    assert "timestamp.json" in store.files
    assert "7.snapshot.json" in store.files
    # And so on from there.
    trust.refresh(repo.publish())


def test_a_fast_forward_of_targets_takes_the_release_keys(repo, trust, store):
    repo.targets.version = HIGHEST
    message = repo.publish(signers={"targets": [key("thief")]}, hashes=False)
    refused(trust, store, message, SignatureError)
    repo.targets.version = 1


def test_a_stolen_timestamp_key_cannot_carry_the_time_away_for_good(repo, trust, store):
    repo.life["timestamp"] = 3000 * DAY
    repo.timestamp.unrecognized_fields["x-vigia-issued"] = int(NOW + 2000 * DAY)
    repo.timestamp.version += 1
    repo.timestamp.expires = repo.timestamp.expires.replace(year=2040)
    trust.refresh(repo.publish(same=["timestamp"]))
    assert trust.now() == NOW + 2000 * DAY
    assert store.floor == NOW
    repo.life["timestamp"] = 7 * DAY
    for role in ("snapshot", "timestamp"):
        repo.set_keys(role, [key(f"new {role}")])
    repo.add_root()
    trust.refresh(repo.publish())
    assert trust.now() == NOW


def _withdraw_root(repo, keys=None):
    """The owner takes back a root that no device has accepted."""
    repo.roots.pop()
    repo.files.pop(f"{repo.root.version}.root.json")
    repo.root.version -= 1
    if keys:
        repo.set_keys("root", keys)
