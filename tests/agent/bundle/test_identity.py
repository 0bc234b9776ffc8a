import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.documents import IDENTITY, Identity
from agent.bundle.dsse import sign
from agent.bundle.identity import fingerprint, make_identity, read_identity
from agent.bundle.softkeys import SoftKeys
from agent.errors import BundleError, ManifestError, SignatureError
from tests.fakes.certificaterequest import new_key, request

KEYS, OTHER = SoftKeys.generate(), SoftKeys.generate()
TLS = new_key()


def made(keys=KEYS, device="line-7", tls=TLS):
    return make_identity(device, keys, request(device, tls), "orin-nano")


def signed_anew(keys=KEYS, **changes):
    """What a device with these keys could sign."""
    identity = read_identity(made()).model_copy(update=changes)
    return sign(IDENTITY, identity, [keys.signer()])


@pytest.mark.parametrize("kem", ["p256", "mlkem768-x25519"])
def test_a_device_shows_all_of_its_public_keys(kem):
    keys = SoftKeys.generate(kem)
    identity = read_identity(made(keys))
    assert (identity.device, identity.kem, identity.key_level) == ("line-7", kem, "L0")
    assert base64.b64decode(identity.kem_key) == keys.kem_public
    assert identity.sign_key == keys.sign_public_pem


def test_no_private_key_is_in_it():
    text = base64.b64decode(json.loads(made())["payload"])
    assert b"PRIVATE" not in text


def test_it_must_be_signed_with_the_key_that_it_shows():
    with pytest.raises(SignatureError):
        read_identity(signed_anew(OTHER))


def test_a_key_cannot_be_put_in_its_place_on_the_way():
    envelope = json.loads(made())
    envelope["payload"] = json.loads(made(OTHER))["payload"]
    with pytest.raises(SignatureError):
        read_identity(json.dumps(envelope).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"kem_key": "AAAA"},
        {"kem_key": "A"},
        {"kem": "mlkem768-x25519"},
        {"kem": "mlkem768-x25519", "kem_key": base64.b64encode(bytes(1216)).decode()},
        {"csr": "no request"},
        {"csr": KEYS.sign_public_pem},
    ],
)
def test_keys_that_are_none_are_refused(changes):
    with pytest.raises(ManifestError):
        read_identity(signed_anew(**changes))


def test_the_fingerprint_is_the_same_each_time():
    first, again = read_identity(made()), read_identity(made())
    assert first.csr != again.csr
    assert fingerprint(first) == fingerprint(again)
    assert len(fingerprint(first)) == 39


def test_the_fingerprint_is_of_everything_that_matters():
    marks = [
        fingerprint(read_identity(data))
        for data in (
            made(),
            made(OTHER),
            made(device="line-8"),
            made(tls=new_key()),
            signed_anew(kem_key=base64.b64encode(OTHER.kem_public).decode()),
        )
    ]
    assert len(set(marks)) == len(marks)


@given(st.binary(max_size=200))
def test_garbage_is_one_kind_of_error(data):
    with pytest.raises(BundleError):
        read_identity(data)


@given(st.sampled_from(sorted(Identity.model_fields)), st.text(max_size=50))
def test_a_field_of_anything_is_one_kind_of_error(field, text):
    document = Identity.model_construct(**{**read_identity(made()).model_dump(), field: text})
    envelope = sign(IDENTITY, document, [KEYS.signer()])
    if field in {"device", "hw_class"}:
        return
    with pytest.raises(BundleError):
        read_identity(envelope)
