import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from fleet.auditchain import (
    NOTHING,
    Entry,
    check_head,
    follow,
    line_hash,
    parse_line,
    signed_head,
    signed_line,
)
from fleet.errors import AuditError

ANN = CryptoSigner.generate_ed25519()
BOB = CryptoSigner.generate_ed25519()
AUDIT = CryptoSigner.generate_ed25519()
KEYS = {"ann": [ANN.public_key], "bob": [BOB.public_key]}


def make(count):
    lines, previous = [], NOTHING
    for number in range(1, count + 1):
        name, signer = (("ann", ANN), ("bob", BOB))[number % 2]
        entry = Entry(
            number=number,
            previous=previous,
            at=1_700_000_000 + number,
            operator=name,
            action="device.enroll",
            details={"device": f"line-{number}", "groups": ["hall"], "again": False, "n": 1.5},
        )
        lines.append(signed_line(entry, signer))
        previous = line_hash(lines[-1])
    return lines


LINES = make(4)
HEAD = signed_head(4, line_hash(LINES[-1]), sum(map(len, LINES)), AUDIT)


def whole(lines):
    """As `fleet.audit` judges: the chain, then whether it ends where the head says."""
    links = list(follow(lines, KEYS))
    if len(links) < HEAD.count or links[HEAD.count - 1].hash != HEAD.hash:
        raise AuditError("not what the head says")


def test_an_untouched_log_is_whole():
    whole(LINES)
    check_head(HEAD, AUDIT.public_key)


@given(st.integers(0, sum(map(len, LINES)) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(place, change):
    data = bytearray(b"".join(LINES))
    data[place] ^= change
    with pytest.raises(AuditError):
        whole(bytes(data).splitlines(keepends=True))


@given(st.lists(st.integers(0, 3), max_size=6).filter(lambda order: order[:4] != [0, 1, 2, 3]))
def test_lines_stand_in_one_order_only(order):
    with pytest.raises(AuditError):
        whole([LINES[number] for number in order])


@given(st.binary(max_size=300))
def test_garbage_is_one_kind_of_error(data):
    with pytest.raises(AuditError):
        parse_line(data, 1)


@given(
    st.sampled_from(["count", "hash", "size"]), st.integers(0, 2**40), st.integers(0, 2**256 - 1)
)
def test_no_figure_of_the_head_can_be_changed(field, number, digest):
    value = f"{digest:064x}" if field == "hash" else number
    forged = HEAD.model_copy(update={field: value})
    if forged != HEAD:
        with pytest.raises(AuditError, match="not signed"):
            check_head(forged, AUDIT.public_key)


def test_a_campaign_of_ten_thousand_devices_has_room():
    devices = [f"{n:064d}" for n in range(10_000)]
    entry = Entry(
        number=1,
        previous=NOTHING,
        at=1,
        operator="ann",
        action="campaign.begin",
        details={"devices": devices},
    )
    (link,) = follow([signed_line(entry, ANN)], {"ann": [ANN.public_key]})
    assert link.entry.details["devices"] == devices


def test_only_the_audit_key_signs_heads():
    with pytest.raises(AuditError):
        check_head(HEAD, ANN.public_key)
