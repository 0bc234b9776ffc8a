import hashlib
import json
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.kem import key_id, load_public
from agent.bundle.softkeys import KemKey
from agent.errors import ManifestError

VECTORS = Path(cryptography_vectors.__file__).parent / "HPKE" / "hpke-pq-test-vectors.json"
HYBRID = 25722
"""Its number in the registry, 0x647a."""

KEMS = ("p256", "mlkem768-x25519")


def hybrid_vector():
    (found,) = (
        vector
        for vector in json.loads(VECTORS.read_text())
        if (vector["kem_id"], vector["kdf_id"], vector["aead_id"]) == (HYBRID, 1, 3)
    )
    return found


def expanded(seed):
    """The two private keys that a seed of 32 bytes stands for."""
    stream = hashlib.shake_256(seed).digest(96)
    return (
        mlkem.MLKEM768PrivateKey.from_seed_bytes(stream[:64]),
        x25519.X25519PrivateKey.from_private_bytes(stream[64:]),
    )


def test_the_hybrids_public_key_is_written_as_the_draft_does():
    vector = hybrid_vector()
    key = KemKey(expanded(bytes.fromhex(vector["skRm"])))
    assert key.public == bytes.fromhex(vector["pkRm"])


def test_the_hybrid_opens_the_drafts_vector():
    vector = hybrid_vector()
    private = MLKEM768X25519PrivateKey(*expanded(bytes.fromhex(vector["skRm"])))
    first = vector["encryptions"][0]
    # One-shot messages of the library have no associated data; the vectors' have.
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    sealed = bytes.fromhex(vector["enc"] + first["ct"])
    opened = openssl.hpke._decrypt_with_aad(
        suite, sealed, private, bytes.fromhex(vector["info"]), bytes.fromhex(first["aad"])
    )
    assert opened == bytes.fromhex(first["pt"])


@pytest.mark.parametrize("kem", KEMS)
def test_a_key_is_the_same_after_it_was_written(kem):
    key = KemKey.generate(kem)
    again = KemKey.from_pem(key.pem())
    assert (again.kem, again.public) == (kem, key.public)
    assert len(key_id(key.public)) == 16


@pytest.mark.parametrize("kem", KEMS)
@given(public=st.binary(max_size=1300))
def test_what_is_no_public_key_is_one_kind_of_error(kem, public):
    try:
        load_public(kem, public)
    except ManifestError:
        pass
    else:
        # Any 32 bytes are a key of X25519, but ML-KEM's must be in canonical form.
        assert len(public) == {"p256": 65, "mlkem768-x25519": 1216}[kem]


@pytest.mark.parametrize("kem", KEMS)
def test_a_point_off_the_curve_or_a_cut_key_is_refused(kem):
    public = KemKey.generate(kem).public
    for spoilt in (public[:-1], b"", b"\xff" * len(public), public + b"\x00"):
        with pytest.raises(ManifestError):
            load_public(kem, spoilt)


@pytest.mark.parametrize("pem", [b"", b"no key", KemKey.generate("p256").pem() * 2])
def test_what_is_no_private_key_is_a_value_error(pem):
    with pytest.raises(ValueError, match=r"key|PEM"):
        KemKey.from_pem(pem)
