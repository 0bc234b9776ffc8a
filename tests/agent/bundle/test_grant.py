import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.documents import Grant
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.kem import SUITES, load_public
from agent.bundle.softkeys import SoftKeys
from agent.errors import BundleError, ManifestError

DIGEST = "ab" * 32
DATA_KEY = bytes(range(32))
INFO = grant_info(DIGEST, "line-7", 42)

KEMS = ("p256", "mlkem768-x25519")
KEYS = {kem: SoftKeys.generate(kem) for kem in KEMS}
OTHERS = {kem: SoftKeys.generate(kem) for kem in KEMS}


def sealed(kem, info=INFO, keys=KEYS, data_key=DATA_KEY):
    return seal_grant(kem, keys[kem].kem_public, data_key, info)


def changed(grant, position, bits=1):
    raw = bytearray(base64.b64decode(grant.sealed))
    raw[position] ^= bits
    return grant.model_copy(update={"sealed": base64.b64encode(bytes(raw)).decode()})


def test_what_a_grant_is_bound_to_byte_by_byte():
    assert INFO == (b"vigia/grant/1\x00" + b"\xab" * 32 + b"\x00\x06line-7" + b"\x00" * 7 + b"\x2a")


@given(
    st.tuples(st.text(max_size=20), st.integers(0, 2**64 - 1)),
    st.tuples(st.text(max_size=20), st.integers(0, 2**64 - 1)),
)
def test_two_places_are_never_bound_alike(one, other):
    alike = grant_info(DIGEST, *one) == grant_info(DIGEST, *other)
    assert alike == (one == other)


@pytest.mark.parametrize(
    ("digest", "device", "counter"),
    [
        ("ab" * 31, "d", 1),
        ("zz" * 32, "d", 1),
        ("", "d", 1),
        (DIGEST, "d" * 65_536, 1),
        (DIGEST, "d", -1),
        (DIGEST, "d", 2**64),
    ],
)
def test_what_has_no_room_in_its_field_is_refused(digest, device, counter):
    with pytest.raises(ManifestError, match="a grant is bound to"):
        grant_info(digest, device, counter)


@pytest.mark.parametrize("kem", KEMS)
def test_a_grant_opens_where_it_belongs(kem):
    grant = sealed(kem)
    assert KEYS[kem].open_grant(grant, INFO) == DATA_KEY
    # As it comes out of an assignment.
    assert Grant.model_validate_json(grant.encode()) == grant


@pytest.mark.parametrize("kem", KEMS)
def test_two_grants_of_one_key_have_nothing_in_common(kem):
    assert sealed(kem).sealed != sealed(kem).sealed


@pytest.mark.parametrize("kem", KEMS)
def test_another_devices_grant_is_refused(kem):
    with pytest.raises(BundleError, match="enrol it again"):
        KEYS[kem].open_grant(sealed(kem, keys=OTHERS), INFO)


@pytest.mark.parametrize("kem", KEMS)
def test_another_devices_grant_under_my_keys_name_does_not_open(kem):
    mine = sealed(kem).key_id
    stolen = sealed(kem, keys=OTHERS).model_copy(update={"key_id": mine})
    with pytest.raises(BundleError, match="does not open"):
        KEYS[kem].open_grant(stolen, INFO)


@pytest.mark.parametrize("kem", KEMS)
@pytest.mark.parametrize(
    "info",
    [
        grant_info("cd" * 32, "line-7", 42),
        grant_info(DIGEST, "line-8", 42),
        grant_info(DIGEST, "line-7", 43),
        b"",
    ],
)
def test_it_opens_for_no_other_bundle_device_or_assignment(kem, info):
    with pytest.raises(BundleError, match="does not open"):
        KEYS[kem].open_grant(sealed(kem), info)


def test_a_grant_for_another_kind_of_key_is_refused():
    with pytest.raises(BundleError, match="kind"):
        KEYS["p256"].open_grant(sealed("mlkem768-x25519"), INFO)


@pytest.mark.parametrize("kem", KEMS)
@given(st.integers(0, 80), st.integers(1, 255))
def test_no_bit_of_it_may_change(kem, position, bits):
    with pytest.raises(BundleError):
        KEYS[kem].open_grant(changed(sealed(kem), position, bits), INFO)


@pytest.mark.parametrize("kem", KEMS)
@given(st.binary(min_size=1, max_size=2000))
def test_garbage_is_one_kind_of_error(kem, raw):
    grant = sealed(kem).model_copy(update={"sealed": base64.b64encode(raw).decode()})
    with pytest.raises(BundleError):
        KEYS[kem].open_grant(grant, INFO)


@pytest.mark.parametrize("text", ["A", "AAA", "AAAA=="])
def test_what_is_no_base64_is_one_kind_of_error(text):
    with pytest.raises(BundleError):
        KEYS["p256"].open_grant(sealed("p256").model_copy(update={"sealed": text}), INFO)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_data_key_has_one_length(length):
    with pytest.raises(ManifestError, match="32 bytes"):
        sealed("p256", data_key=bytes(length))


def test_a_key_of_another_length_inside_a_grant_is_refused():
    keys = KEYS["p256"]
    raw = SUITES["p256"].encrypt(b"short", load_public("p256", keys.kem_public), INFO)
    grant = sealed("p256").model_copy(update={"sealed": base64.b64encode(raw).decode()})
    with pytest.raises(BundleError, match="32 bytes"):
        keys.open_grant(grant, INFO)


def test_nothing_is_sealed_to_a_key_that_everybody_can_open():
    with pytest.raises(ManifestError, match="unsafe"):
        seal_grant("mlkem768-x25519", bytes(1216), DATA_KEY, INFO)
