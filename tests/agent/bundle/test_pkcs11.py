"""Keys in a token, with SoftHSM2."""

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agent.bundle.documents import APPROVAL, Approval
from agent.bundle.dsse import key_of_pem, sign, verify
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.identity import make_identity, read_identity
from agent.bundle.keys import make_keys, open_keys
from agent.bundle.softkeys import SoftKeys
from agent.config import KeyConfig
from agent.errors import BundleError, KeyStoreError
from tests.fakes.certificaterequest import request
from tests.fakes.softhsm import LABEL, PIN, SoftHsm, library

library()

import pkcs11  # noqa: E402 - may not be installed
from pkcs11 import Attribute, KeyType, ObjectClass  # noqa: E402 - as above

from agent.bundle.pkcs11 import KEM_LABEL, SIGN_LABEL, make_token_keys, open_token  # noqa: E402

INFO = grant_info("ab" * 32, "line-7", 42)
DATA_KEY = bytes(range(32))


@pytest.fixture
def hsm(tmp_path, monkeypatch):
    token = SoftHsm(tmp_path, monkeypatch)
    yield token
    token.close()


@pytest.fixture
def keys(hsm):
    return make_token_keys(hsm.library, LABEL, PIN)


def grant(keys, info=INFO):
    return seal_grant(keys.kem, keys.kem_public, DATA_KEY, info)


def private(session, label):
    return session.get_key(ObjectClass.PRIVATE_KEY, KeyType.EC, label=label)


def test_a_grant_opens_by_a_key_that_never_leaves_the_token(keys):
    assert (keys.level, keys.kem) == ("L2", "p256")
    assert keys.open_grant(grant(keys), INFO) == DATA_KEY


def test_another_devices_grant_or_another_purpose_is_refused(keys):
    with pytest.raises(BundleError, match="enrol it again"):
        keys.open_grant(grant(SoftKeys.generate()), INFO)
    renamed = grant(SoftKeys.generate()).model_copy(update={"key_id": grant(keys).key_id})
    with pytest.raises(BundleError, match="does not open"):
        keys.open_grant(renamed, INFO)
    with pytest.raises(BundleError, match="does not open"):
        keys.open_grant(grant(keys), grant_info("ab" * 32, "line-7", 43))


@pytest.mark.parametrize("raw", [b"\x04", b"\x04" + bytes(112), b"\x00" * 113, b"\x04" * 113])
def test_garbage_is_one_kind_of_error(keys, raw):
    spoilt = grant(keys).model_copy(update={"sealed": base64.b64encode(raw).decode()})
    with pytest.raises(BundleError):
        keys.open_grant(spoilt, INFO)


def test_it_signs_as_every_device_does(keys):
    document = Approval(campaign="c1", sha256="ab" * 32, at=0)
    for _ in range(20):
        # Now and then one of the two numbers of a signature begins with zeros.
        envelope = sign(APPROVAL, document, [keys.signer()])
        public = key_of_pem(keys.sign_public_pem)
        assert verify(envelope, APPROVAL, Approval, [public]) == document


def test_it_shows_itself_as_every_device_does(keys):
    identity = read_identity(make_identity("line-7", keys, request("line-7"), "orin-nano"))
    assert identity.key_level == "L2"
    assert base64.b64decode(identity.kem_key) == keys.kem_public


def test_opened_again_or_made_again_the_keys_are_the_same(hsm, keys):
    for use in (open_token, make_token_keys):
        again = use(hsm.library, LABEL, PIN)
        assert (again.kem_public, again.key_id) == (keys.kem_public, keys.key_id)
        assert again.open_grant(grant(keys), INFO) == DATA_KEY


def test_threads_can_share_the_token(keys):
    def work(_number):
        keys.sign(b"data")
        return keys.open_grant(grant(keys), INFO)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(64))) == {DATA_KEY}


def test_private_keys_cannot_be_read_and_do_one_thing_each(hsm, keys):
    session = hsm.session()
    for label in (KEM_LABEL, SIGN_LABEL):
        key = private(session, label)
        assert key[Attribute.SENSITIVE]
        assert not key[Attribute.EXTRACTABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[Attribute.VALUE]
    kem, signing = private(session, KEM_LABEL), private(session, SIGN_LABEL)
    assert (kem[Attribute.DERIVE], kem[Attribute.SIGN]) == (True, False)
    assert (signing[Attribute.DERIVE], signing[Attribute.SIGN]) == (False, True)


def test_no_shared_secret_stays_in_the_token(hsm, keys):
    keys.open_grant(grant(keys), INFO)
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY}
    assert list(hsm.session().get_objects(wanted)) == []


@pytest.mark.parametrize("label", [KEM_LABEL, SIGN_LABEL])
def test_keys_that_do_not_belong_together_are_found_out_at_opening(hsm, keys, label):
    session = hsm.session()
    session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC, label=label).destroy()
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    numbers = other.public_numbers()
    point = b"\x04\x41\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters("secp256r1"),
            Attribute.EC_POINT: point,
            Attribute.LABEL: label,
            Attribute.TOKEN: True,
        }
    )
    with pytest.raises(KeyStoreError, match="computes wrongly"):
        open_token(hsm.library, LABEL, PIN)


def test_a_key_of_another_curve_is_refused(hsm, keys):
    session = hsm.session()
    session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC, label=SIGN_LABEL).destroy()
    private(session, SIGN_LABEL).destroy()
    curve = {Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters("secp384r1")}
    session.create_domain_parameters(KeyType.EC, curve, local=True).generate_keypair(
        label=SIGN_LABEL, store=True
    )
    with pytest.raises(KeyStoreError, match="not one of P-256"):
        open_token(hsm.library, LABEL, PIN)


def test_opening_makes_no_keys(hsm):
    with pytest.raises(KeyStoreError, match="vigia enroll"):
        open_token(hsm.library, LABEL, PIN)


@pytest.mark.parametrize("pin", ["99999999", "", "1" * 300])
def test_a_wrong_pin_is_told_and_not_shown(hsm, pin):
    with pytest.raises(KeyStoreError, match="refuses the PIN") as caught:
        open_token(hsm.library, LABEL, pin)
    assert not pin or pin not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_a_missing_token_is_told(hsm):
    with pytest.raises(KeyStoreError, match="no PKCS#11 token of this label"):
        open_token(hsm.library, "another", PIN)


def test_what_is_no_library_is_told(hsm, tmp_path):
    fake = tmp_path / "lib.so"
    fake.write_bytes(b"no library")
    with pytest.raises(KeyStoreError, match="no PKCS#11 library that can be used"):
        open_token(fake, LABEL, PIN)


def test_a_token_that_has_gone_is_told_when_it_is_used(hsm, keys):
    sealed = grant(keys)
    session = hsm.session()
    private(session, KEM_LABEL).destroy()
    private(session, SIGN_LABEL).destroy()
    with pytest.raises(KeyStoreError, match="fails: "):
        keys.open_grant(sealed, INFO)
    with pytest.raises(KeyStoreError, match="fails: "):
        keys.sign(b"data")


def test_the_configuration_leads_to_the_token(hsm, tmp_path):
    config = KeyConfig(kind="pkcs11", module=hsm.library, token=LABEL, pin=PIN)
    made = make_keys(config, tmp_path / "state", "p256")
    opened = open_keys(config, tmp_path / "state")
    assert (opened.level, opened.key_id) == ("L2", made.key_id)
    assert not (tmp_path / "state").exists()
    signature = opened.sign(b"data")
    made._public.verify(signature, b"data", ec.ECDSA(hashes.SHA256()))
