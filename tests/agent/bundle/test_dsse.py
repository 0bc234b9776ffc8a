import base64
import contextlib
import json
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner, SSlibKey

from agent.bundle.documents import (
    APPROVAL,
    COMMAND,
    MAX_DOCUMENT_BYTES,
    MAX_ENVELOPE_BYTES,
    REPORT,
    Approval,
    Command,
    Report,
)
from agent.bundle.dsse import MAX_SIGNATURES, key_of_pem, sign, unverified, verify
from agent.bundle.softkeys import SoftKeys
from agent.errors import BundleError, ManifestError, SignatureError
from tests.fakes.tufrepository import key

ANN, BEN, EVE = key("ann"), key("ben"), key("eve")
APPROVED = Approval(campaign="c1", sha256="ab" * 32, at=1_800_000_000)


def public(*signers):
    return [signer.public_key for signer in signers]


def signed(*signers, document=APPROVED, payload_type=APPROVAL):
    return sign(payload_type, document, signers)


def altered(envelope, **changes):
    return json.dumps({**json.loads(envelope), **changes}).encode()


def renamed(signer, key_id, text=None):
    """The same key under another id, and perhaps written otherwise."""
    public_key = signer.public_key
    keyval = {"public": text or public_key.keyval["public"]}
    return SSlibKey(key_id, public_key.keytype, public_key.scheme, keyval)


class Renamed(CryptoSigner):
    def __init__(self, signer, public_key):
        super().__init__(signer._private_key, public_key)


def pem(public_key):
    return public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def test_what_was_signed_is_read_back():
    assert verify(signed(ANN), APPROVAL, Approval, public(ANN)) == APPROVED


def test_the_signature_is_over_the_type_and_the_payload_as_dsse_says():
    envelope = json.loads(signed(ANN))
    payload = base64.b64decode(envelope["payload"])
    assert payload == APPROVED.encode()
    kind = envelope["payloadType"].encode()
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    raw = bytes.fromhex(ANN.public_key.keyval["public"])
    (signature,) = envelope["signatures"]
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(signature["sig"]), pae)


def test_one_of_several_keys_suffices_unless_more_are_asked_for():
    envelope = signed(ANN, BEN)
    for threshold in (1, 2):
        assert verify(envelope, APPROVAL, Approval, public(ANN, BEN, EVE), threshold) == APPROVED
    with pytest.raises(SignatureError, match=r"2 of the 3 keys .* 3 must"):
        verify(envelope, APPROVAL, Approval, public(ANN, BEN, EVE), 3)


@pytest.mark.parametrize("keys", [[], public(BEN)])
def test_signatures_of_others_count_nothing(keys):
    with pytest.raises(SignatureError, match="0 of the"):
        verify(signed(ANN), APPROVAL, Approval, keys)


def test_without_signatures_nothing_is_read():
    with pytest.raises(SignatureError):
        verify(signed(), APPROVAL, Approval, public(ANN))


def test_a_threshold_of_nobody_is_refused():
    with pytest.raises(SignatureError, match="nobody"):
        verify(signed(ANN), APPROVAL, Approval, public(ANN), 0)


def test_a_forged_signature_under_a_known_id_counts_nothing():
    forger = Renamed(EVE, renamed(EVE, ANN.public_key.keyid))
    with pytest.raises(SignatureError):
        verify(signed(forger), APPROVAL, Approval, public(ANN))


def test_an_altered_payload_is_refused():
    other = APPROVED.model_copy(update={"campaign": "c2"})
    forged = altered(signed(ANN), payload=base64.b64encode(other.encode()).decode())
    with pytest.raises(SignatureError):
        verify(forged, APPROVAL, Approval, public(ANN))


def test_a_document_never_passes_for_one_of_another_type():
    with pytest.raises(SignatureError, match="holds"):
        verify(signed(ANN, payload_type=COMMAND), APPROVAL, Approval, public(ANN))
    relabelled = altered(signed(ANN, payload_type=COMMAND), payloadType=APPROVAL)
    with pytest.raises(SignatureError, match="0 of the 1"):
        verify(relabelled, APPROVAL, Approval, public(ANN))


def test_a_type_from_outside_is_shown_harmless():
    with pytest.raises(SignatureError) as caught:
        verify(altered(signed(ANN), payloadType="\x1b[2J\n"), APPROVAL, Approval, public(ANN))
    assert str(caught.value).isprintable()


def test_a_payload_of_another_kind_is_refused_though_it_is_signed():
    with pytest.raises(ManifestError, match="command"):
        verify(signed(ANN, payload_type=COMMAND), COMMAND, Command, public(ANN))


def test_a_key_that_signs_twice_is_refused():
    envelope = json.loads(signed(ANN))
    envelope["signatures"] *= 2
    with pytest.raises(ManifestError, match="signed twice"):
        verify(json.dumps(envelope).encode(), APPROVAL, Approval, public(ANN), 2)


@pytest.mark.parametrize("text", [None, ANN.public_key.keyval["public"].upper()])
def test_a_key_under_two_ids_counts_once(text):
    twin = Renamed(ANN, renamed(ANN, "ab", text))
    envelope, keys = signed(ANN, twin), public(ANN, twin)
    assert verify(envelope, APPROVAL, Approval, keys, 1) == APPROVED
    with pytest.raises(SignatureError, match="1 of the 2"):
        verify(envelope, APPROVAL, Approval, keys, 2)


def test_an_ecdsa_key_written_in_two_ways_counts_once():
    signer = CryptoSigner.generate_ecdsa()
    twin = Renamed(signer, renamed(signer, "ab", signer.public_key.keyval["public"] + "\n\n"))
    with pytest.raises(SignatureError, match="1 of the 2"):
        verify(signed(signer, twin), APPROVAL, Approval, public(signer, twin), 2)


def test_a_damaged_key_counts_nothing_and_harms_no_other():
    broken = SSlibKey(BEN.public_key.keyid, "ed25519", "ed25519", {"public": "no key"})
    envelope = signed(ANN, BEN)
    assert verify(envelope, APPROVAL, Approval, [broken, *public(ANN)]) == APPROVED
    with pytest.raises(SignatureError, match="1 of the 2"):
        verify(envelope, APPROVAL, Approval, [broken, *public(ANN)], 2)


def test_devices_sign_with_ecdsa():
    keys = SoftKeys.generate()
    envelope = sign(APPROVAL, APPROVED, [keys.signer()])
    assert verify(envelope, APPROVAL, Approval, [key_of_pem(keys.sign_public_pem)]) == APPROVED
    other = key_of_pem(SoftKeys.generate().sign_public_pem)
    with pytest.raises(SignatureError):
        verify(envelope, APPROVAL, Approval, [other])


def test_what_was_verified_before_is_read_without_keys():
    assert unverified(signed(ANN), Approval) == APPROVED
    with pytest.raises(ManifestError):
        unverified(b"{}", Approval)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem(ed25519.Ed25519PrivateKey.generate().public_key()),
        pem(ec.generate_private_key(ec.SECP384R1()).public_key()),
        pem(rsa.generate_private_key(65537, 2048).public_key()),
        "x" * 10**6,
    ],
)
def test_keys_of_devices_are_of_one_kind(text):
    with pytest.raises(ManifestError, match="signing key"):
        key_of_pem(text)


def report(figures):
    return Report(
        device="d1",
        slot="main",
        campaign="c1",
        counter=1,
        sha256="ab" * 32,
        release_counter=1,
        outcome="COMMITTED",
        figures=figures,
        key_level="L0",
        boot="b",
        at=0,
    )


def test_the_largest_report_fits():
    keys = SoftKeys.generate()
    full = report('"' + "\\" * 32_000 + '"')
    envelope = sign(REPORT, full, [keys.signer()])
    assert len(envelope) <= MAX_ENVELOPE_BYTES
    assert verify(envelope, REPORT, Report, [key_of_pem(keys.sign_public_pem)]) == full


def test_what_no_reader_would_take_is_not_signed():
    big = report("\x00" * 32_768)
    assert len(big.encode()) > MAX_DOCUMENT_BYTES
    with pytest.raises(ManifestError, match="larger than"):
        sign(REPORT, big, [ANN])
    with pytest.raises(ManifestError, match="signatures"):
        signed(*(key(str(n)) for n in range(MAX_SIGNATURES + 1)))


def huge(envelope):
    return altered(envelope, payload="A" * 2**24)


def nested(_envelope):
    return b"[" * 100_000


def many_signatures(envelope):
    (one,) = json.loads(envelope)["signatures"]
    each = [{**one, "keyid": f"{n:04x}"} for n in range(MAX_SIGNATURES + 1)]
    return altered(envelope, signatures=each)


def unknown_field(envelope):
    return altered(envelope, extra=1)


def field_twice(envelope):
    return envelope[:-1] + b',"payloadType":"x"}'


def no_base64(envelope):
    return altered(envelope, payload="A")


def other_alphabet(envelope):
    return altered(envelope, payload="-_-_")


def no_text(envelope):
    return altered(envelope, payload=7)


def other_encoding(envelope):
    return envelope.decode().encode("utf-16")


@pytest.mark.parametrize(
    "spoil",
    [
        huge,
        nested,
        many_signatures,
        unknown_field,
        field_twice,
        no_base64,
        other_alphabet,
        no_text,
        other_encoding,
    ],
)
def test_what_is_no_envelope_is_refused_before_any_signature_is_tried(spoil):
    with pytest.raises(ManifestError):
        verify(spoil(signed(ANN)), APPROVAL, Approval, public(ANN))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["payload", "payloadType", "signatures"])


@given(st.binary(max_size=300))
def test_garbage_is_one_kind_of_error(data):
    with pytest.raises(BundleError):
        verify(data, APPROVAL, Approval, public(ANN))


@given(FIELDS, JSON)
def test_a_field_of_anything_is_one_kind_of_error(field, value):
    data = altered(signed(ANN), **{field: value})
    with pytest.raises(BundleError):
        verify(data, APPROVAL, Approval, public(ANN))


@given(JSON)
def test_a_signature_of_anything_is_one_kind_of_error(value):
    data = altered(signed(ANN), signatures=[{"keyid": ANN.public_key.keyid, "sig": value}])
    with pytest.raises(BundleError):
        verify(data, APPROVAL, Approval, public(ANN))


@given(JSON)
def test_a_signed_payload_of_anything_is_one_kind_of_error(value):
    class Anything(Approval):
        def encode(self):
            return json.dumps(value).encode()

    document = Anything.model_construct(**APPROVED.model_dump())
    with pytest.raises(BundleError):
        verify(sign(APPROVAL, document, [ANN]), APPROVAL, Approval, public(ANN))


SPANS = list(pairwise(range(0, len(signed(ANN)), 7)))


@given(st.sampled_from(SPANS), st.binary(min_size=1, max_size=7))
def test_no_change_to_any_bytes_gives_another_document(span, new):
    data = signed(ANN)
    changed = data[: span[0]] + new + data[span[1] :]
    with contextlib.suppress(BundleError):
        assert verify(changed, APPROVAL, Approval, public(ANN)) == APPROVED
