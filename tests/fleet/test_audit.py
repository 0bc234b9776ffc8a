import json
import os

import pytest
from securesystemslib.signer import CryptoSigner

from fleet.audit import HEAD, HEAD_SETTING, LOG, Audit
from fleet.auditchain import MAX_LINE_BYTES, Actor, signed_head
from fleet.database import Database, write_setting
from fleet.errors import AuditError, FleetError

AUDIT_KEY = CryptoSigner.generate_ed25519()
ANN = Actor("ann", CryptoSigner.generate_ed25519())
BOB = Actor("bob", CryptoSigner.generate_ed25519())
KEYS = {"ann": [ANN.signer.public_key], "bob": [BOB.signer.public_key]}


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/fleet.db")
    database.create()
    yield database
    database.close()


@pytest.fixture
def audit(tmp_path, database):
    return Audit(tmp_path / "audit", database, lambda: AUDIT_KEY, lambda: 1_700_000_000)


def record(audit, database, *names, actor=ANN):
    for name in names:
        with database.session() as session:
            audit.record(session, actor, "device.enrol", {"device": name})


def verify(audit, noted=None):
    return audit.verify(KEYS, AUDIT_KEY.public_key, noted)


def lines(tmp_path):
    return (tmp_path / "audit" / LOG).read_bytes().splitlines(keepends=True)


def write(tmp_path, changed):
    (tmp_path / "audit" / LOG).write_bytes(b"".join(changed))


def test_what_was_recorded_is_there_in_order_and_verifies(audit, database):
    record(audit, database, "a", "b")
    record(audit, database, "c", actor=BOB)
    found = [(e.number, e.operator, e.details["device"]) for e in audit.entries()]
    assert found == [(1, "ann", "a"), (2, "ann", "b"), (3, "bob", "c")]
    assert verify(audit).count == 3


def test_log_and_head_are_for_their_owner_only(audit, database, tmp_path):
    record(audit, database, "a")
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    for name in (LOG, HEAD):
        assert (tmp_path / "audit" / name).stat().st_mode & 0o777 == 0o600


def test_an_altered_entry_is_found(audit, database, tmp_path):
    record(audit, database, "a", "b", "c")
    changed = lines(tmp_path)
    changed[1] = changed[1].replace(b'"device":"b"', b'"device":"x"')
    write(tmp_path, changed)
    with pytest.raises(AuditError, match=r"audit entry 2 .* no key of ann signed it"):
        verify(audit)


def test_an_entry_signed_for_somebody_else_is_found(audit, database):
    record(audit, database, "a", actor=Actor("ann", BOB.signer))
    with pytest.raises(AuditError, match=r"entry 1 says that ann did device\.enrol"):
        verify(audit)


def test_an_entry_of_somebody_unknown_is_found(audit, database):
    record(audit, database, "a", actor=Actor("eve", CryptoSigner.generate_ed25519()))
    with pytest.raises(AuditError, match="no key of eve"):
        verify(audit)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda old: [old[0], old[2], old[3]],
        lambda old: [old[0], old[2], old[1], old[3]],
        lambda old: [old[0], old[0], old[1], old[2], old[3]],
        lambda old: old[1:],
    ],
    ids=["removed", "moved", "doubled", "first removed"],
)
def test_a_broken_chain_is_found(audit, database, tmp_path, tamper):
    record(audit, database, "a", "b", "c", "d")
    write(tmp_path, tamper(lines(tmp_path)))
    with pytest.raises(AuditError, match="does not follow the one before"):
        verify(audit)


def test_entries_cut_off_are_found(audit, database, tmp_path):
    record(audit, database, "a", "b", "c")
    write(tmp_path, lines(tmp_path)[:-1])
    with pytest.raises(AuditError, match="was cut off: it has 2 entries, its head says 3"):
        verify(audit)
    with pytest.raises(AuditError, match="was cut off"):
        record(audit, database, "d")


def test_log_and_head_put_back_together_are_found_by_the_database(audit, database, tmp_path):
    record(audit, database, "a", "b")
    old_lines, old_head = lines(tmp_path), (tmp_path / "audit" / HEAD).read_bytes()
    record(audit, database, "c")
    write(tmp_path, old_lines)
    (tmp_path / "audit" / HEAD).write_bytes(old_head)
    with pytest.raises(AuditError, match="was put back: it says 2 entries, the database 3"):
        verify(audit)
    with pytest.raises(AuditError, match="was cut off"):
        record(audit, database, "d")


def test_a_head_that_the_audit_key_did_not_sign_is_found(audit, database, tmp_path):
    record(audit, database, "a", "b")
    head = audit.head()
    forged = signed_head(head.count, head.hash, head.size, BOB.signer)
    (tmp_path / "audit" / HEAD).write_bytes(forged.encode())
    with pytest.raises(AuditError, match="not signed by the fleet's audit key"):
        verify(audit)
    with pytest.raises(AuditError, match="not signed by the fleet's audit key"):
        record(audit, database, "c")


def test_a_log_written_anew_with_all_keys_is_found_by_a_head_noted_before(
    audit, database, tmp_path
):
    record(audit, database, "a", "b")
    noted = (audit.head().count, audit.head().hash)
    other = tmp_path / "other"
    other.mkdir()
    fresh = Database(f"sqlite:///{other}/fleet.db")
    fresh.create()
    anew = Audit(other / "audit", fresh, lambda: AUDIT_KEY, lambda: 1_700_000_000)
    record(anew, fresh, "a", "harmless", "c")
    assert verify(anew).count == 3
    with pytest.raises(AuditError, match="another than the one that the head that was noted knows"):
        verify(anew, noted)
    fresh.close()


def test_a_head_noted_before_still_fits_a_log_that_grew(audit, database):
    record(audit, database, "a", "b")
    noted = (audit.head().count, audit.head().hash)
    record(audit, database, "c")
    assert verify(audit, noted).count == 3


def test_a_missing_head_is_found(audit, database, tmp_path):
    record(audit, database, "a")
    (tmp_path / "audit" / HEAD).unlink()
    for act in (lambda: verify(audit), lambda: record(audit, database, "b")):
        with pytest.raises(AuditError, match="has no head"):
            act()


@pytest.mark.parametrize("rest", [b'{"entry":{"num', b""])
def test_after_a_power_cut_between_line_and_head_the_log_goes_on(audit, database, tmp_path, rest):
    record(audit, database, "a")
    head = (tmp_path / "audit" / HEAD).read_bytes()
    record(audit, database, "b")
    with database.session() as session:
        old = json.loads(head)
        write_setting(session, HEAD_SETTING, {"count": old["count"], "hash": old["hash"]})
    (tmp_path / "audit" / HEAD).write_bytes(head)
    with (tmp_path / "audit" / LOG).open("ab") as log:
        log.write(rest)
    assert verify(audit).count == 1
    record(audit, database, "c")
    assert verify(audit).count == 3
    assert [e.details["device"] for e in audit.entries()] == ["a", "b", "c"]


def test_a_power_cut_in_the_very_first_line_leaves_a_log_that_goes_on(audit, database, tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / LOG).write_bytes(b'{"entry":')
    record(audit, database, "a")
    assert verify(audit).count == 1


def test_a_transaction_that_fails_leaves_an_entry_that_verifies(audit, database):
    record(audit, database, "a")

    def fail():
        with database.session() as session:
            audit.record(session, ANN, "device.enrol", {"device": "b"})
            raise KeyError("the command ends here")

    with pytest.raises(KeyError):
        fail()
    record(audit, database, "c")
    assert verify(audit).count == 3


def test_a_disk_that_refuses_is_told_and_the_log_goes_on_afterwards(
    audit, database, tmp_path, monkeypatch
):
    record(audit, database, "a")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FleetError, match=r"cannot be written: .*No space left"):
        record(audit, database, "b")
    monkeypatch.undo()
    record(audit, database, "c")
    verify(audit)


def test_an_entry_that_is_too_long_is_refused_before_it_is_written(audit, database):
    record(audit, database, "a")
    with pytest.raises(FleetError, match="longer than the"), database.session() as session:
        audit.record(session, ANN, "device.enrol", {"device": "x" * MAX_LINE_BYTES})
    assert verify(audit).count == 1


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\n", b"{}\n", b"[" * 5000 + b"\n", b"x" * (MAX_LINE_BYTES + 1)]
)
def test_garbage_in_the_log_is_named(audit, database, tmp_path, garbage):
    record(audit, database, "a")
    with (tmp_path / "audit" / LOG).open("ab") as log:
        log.write(garbage)
    with pytest.raises(AuditError):
        verify(audit)
