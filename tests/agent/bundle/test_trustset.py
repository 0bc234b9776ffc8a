"""Sets as they are read from a disk, or made by a controller: no client's workflow was before."""

from __future__ import annotations

import json

import pytest

from agent.bundle.trustmessage import parse
from agent.bundle.trustset import issued_at, verify_set
from agent.errors import ManifestError, RollbackError, SignatureError
from tests.fakes.tufrepository import DAY, NOW, TufRepository, key


@pytest.fixture
def repo():
    repo = TufRepository()
    repo.add_root()
    return repo


def check(repo, message=None):
    return verify_set(repo.anchor, parse(message or repo.publish()))


def test_a_set_that_fits_together(repo):
    message = repo.publish()
    found = check(repo, message)
    assert found.files == parse(message)
    assert [s.version for s in (found.root, found.timestamp, found.snapshot)] == [2, 1, 1]
    assert issued_at(found.targets) == NOW


def test_expiry_is_not_looked_at(repo):
    repo.life = dict.fromkeys(repo.life, -1000 * DAY)
    repo.add_root()
    assert check(repo).root.version == 3


def test_what_does_not_belong_to_the_set_is_left_out(repo):
    repo.publish()
    old = repo.files["1.targets.json"]
    message = repo.publish()
    found = verify_set(repo.anchor, {**parse(message), "1.targets.json": old})
    assert "1.targets.json" not in found.files


@pytest.mark.parametrize("by", ["former", "own"])
def test_a_root_that_lacks_signatures(repo, by):
    former = repo.keys["root"]
    repo.set_keys("root", [key("new 1"), key("new 2")])
    repo.add_root(former if by == "former" else repo.keys["root"])
    with pytest.raises(SignatureError, match="root"):
        check(repo)


def test_a_root_under_the_number_of_another(repo):
    repo.add_root(version=5)
    repo.files["3.root.json"] = repo.files.pop("5.root.json")
    with pytest.raises(RollbackError, match="has version 5"):
        check(repo)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_role_that_lacks_signatures(repo, role):
    with pytest.raises(SignatureError, match=role):
        check(repo, repo.publish(signers={role: repo.keys["director"]}))


@pytest.mark.parametrize("role", ["targets", "snapshot"])
def test_a_role_of_another_version_than_is_listed(repo, role):
    repo.publish()
    old = repo.files[f"1.{role}.json"]
    repo.publish(hashes=False)
    with pytest.raises(RollbackError, match=f"2.{role}.json has version 1, 2 is listed"):
        check(repo, repo.message(**{f"2.{role}.json": old}))


@pytest.mark.parametrize("role", ["targets", "snapshot"])
def test_a_role_of_another_hash_than_is_listed(repo, role):
    repo.publish()
    signed = getattr(repo, role)
    signed.unrecognized_fields["other"] = 1
    other = repo.sign(signed, repo.keys[role])
    with pytest.raises(ManifestError, match="does not match"):
        check(repo, repo.message(**{f"1.{role}.json": other}))


@pytest.mark.parametrize("role", ["1.targets", "1.snapshot", "timestamp"])
def test_a_role_that_is_missing(repo, role):
    repo.publish()
    with pytest.raises(ManifestError, match=f"{role}.json is missing"):
        check(repo, repo.message(**{f"{role}.json": None}))


def test_a_set_of_another_root(repo):
    repo.publish()
    with pytest.raises(ManifestError, match="belongs to root 2, but is shown with root 1"):
        check(repo, repo.message(**{"2.root.json": None}))


@pytest.mark.parametrize("issued", [None, "1", 1.5, True, -1, 2**70, int(NOW + 366 * DAY)])
def test_a_time_that_is_none(repo, issued):
    repo.publish()
    repo.targets.unrecognized_fields["x-vigia-issued"] = issued
    assert issued_at(repo.targets) == 0.0


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"signed":{"_type":"root"}}'])
def test_what_is_no_metadata(repo, text):
    repo.publish()
    for name in repo.names()[1:]:
        with pytest.raises(ManifestError):
            check(repo, repo.message(**{name: text.encode()}))


def test_errors_tell_what_is_behind_them_but_not_endlessly(repo):
    repo.publish()
    value = json.loads(repo.files["timestamp.json"])
    value["signed"]["version"] = "x" * 5000
    with pytest.raises(ManifestError) as raised:
        check(repo, repo.message(**{"timestamp.json": json.dumps(value).encode()}))
    assert "not supported between" in str(raised.value)
    assert len(str(raised.value)) < 1200
