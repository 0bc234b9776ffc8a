import json
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.bundle.hpkebase import POINT_BYTES, open_base, schedule, shared_secret
from agent.bundle.kem import SUITES

VECTORS = Path(cryptography_vectors.__file__).parent / "HPKE" / "test-vectors.json"
OURS = ("0", "16", "1", "2")
"""Base mode, DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM."""


def vectors():
    found = [
        vector
        for vector in json.loads(VECTORS.read_text())
        if tuple(str(vector[f]) for f in ("mode", "kem_id", "kdf_id", "aead_id")) == OURS
    ]
    assert found
    return found


def field(vector, name):
    return bytes.fromhex(vector[name])


def exchange(scalar):
    """What a token does, by software."""
    private = ec.derive_private_key(scalar, ec.SECP256R1())

    def x_of(point):
        return private.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        )

    return x_of


@pytest.mark.parametrize("vector", vectors())
def test_every_step_gives_what_the_rfc_says(vector):
    dh = exchange(int(vector["skRm"], 16))(field(vector, "enc"))
    secret = shared_secret(dh, field(vector, "enc"), field(vector, "pkRm"))
    assert secret == field(vector, "shared_secret")
    assert schedule(secret, field(vector, "info")) == (
        field(vector, "key"),
        field(vector, "base_nonce"),
    )


@pytest.mark.parametrize("vector", vectors())
def test_the_rfcs_first_message_opens(vector):
    first = vector["encryptions"][0]
    opened = open_base(
        field(vector, "enc") + field(first, "ct"),
        field(vector, "pkRm"),
        field(vector, "info"),
        exchange(int(vector["skRm"], 16)),
        field(first, "aad"),
    )
    assert opened == bytes.fromhex(first.get("pt") or vector["pt"])


def pair():
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return private, public, exchange(private.private_numbers().private_value)


def test_it_opens_what_the_library_seals():
    private, public, by_token = pair()
    sealed = SUITES["p256"].encrypt(b"data", private.public_key(), b"info")
    assert open_base(sealed, public, b"info", by_token) == b"data"
    with pytest.raises(ValueError, match="does not open"):
        open_base(sealed, public, b"other", by_token)


@pytest.mark.parametrize("length", [0, 1, POINT_BYTES - 1])
def test_a_cut_message_does_not_open(length):
    _, public, by_token = pair()
    with pytest.raises(ValueError):
        open_base(b"\x04" * length, public, b"", by_token)


@pytest.mark.parametrize(
    "point",
    [
        b"\x04" + b"\x01" * 64,
        b"\x00" * 65,
        # On the curve's twist, or in compressed form, as some tokens would take them.
        b"\x02" + b"\x01" * 32 + b"\x00" * 32,
        b"\x04" + b"\xff" * 64,
    ],
)
def test_the_token_is_never_given_a_point_off_the_curve(point):
    _, public, _ = pair()

    def token(_point):
        raise AssertionError("the token was asked")

    with pytest.raises(ValueError):
        open_base(point + b"\x00" * 48, public, b"", token)
