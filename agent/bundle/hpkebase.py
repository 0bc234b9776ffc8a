"""Opens HPKE messages (RFC 9180, base mode) with a key that does not leave its token.

The token does the Diffie-Hellman step, this the rest: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256,
AES-256-GCM, the first message.

Sections of the RFC: 4 (labels), 4.1 (DHKEM), 5.1 (key schedule), 5.2 (AEAD).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

if TYPE_CHECKING:
    from collections.abc import Callable

POINT_BYTES = 65
"""An uncompressed point of P-256."""

SECRET_BYTES = 32
KEY_BYTES = 32
NONCE_BYTES = 12

VERSION = b"HPKE-v1"
KEM_SUITE = b"KEM\x00\x10"
SUITE = b"HPKE\x00\x10\x00\x01\x00\x02"
MODE_BASE = b"\x00"


def open_base(
    sealed: bytes, public: bytes, info: bytes, exchange: Callable[[bytes], bytes], aad: bytes = b""
) -> bytes:
    """Open `enc || ciphertext`.

    Args:
        sealed: from outside.
        public: the recipient's public key, an uncompressed point.
        info: what it is bound to.
        exchange: gives the x coordinate, 32 bytes, of the private key times a point that is on the
            curve.
        aad: associated data.

    Raises:
        ValueError: it does not open.
    """
    enc, ciphertext = sealed[:POINT_BYTES], sealed[POINT_BYTES:]
    # A token may not look whether a point is on the curve, and one that is not would tell it about
    # its key, bit by bit. Raises ValueError.
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
    key, nonce = schedule(shared_secret(exchange(enc), enc, public), info)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise ValueError("it does not open") from None


def shared_secret(dh: bytes, enc: bytes, public: bytes) -> bytes:
    """DHKEM's ExtractAndExpand; `dh` is an x coordinate, the others are points."""
    prk = _extract(KEM_SUITE, b"", b"eae_prk", dh)
    return _expand(KEM_SUITE, prk, b"shared_secret", enc + public, SECRET_BYTES)


def schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The key schedule of base mode: key, and nonce of the first message."""
    context = MODE_BASE + b"".join(
        _extract(SUITE, b"", label, value)
        for label, value in ((b"psk_id_hash", b""), (b"info_hash", info))
    )
    prk = _extract(SUITE, secret, b"secret", b"")
    return (
        _expand(SUITE, prk, b"key", context, KEY_BYTES),
        _expand(SUITE, prk, b"base_nonce", context, NONCE_BYTES),
    )


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return HKDF.extract(hashes.SHA256(), salt, VERSION + suite + label + ikm)


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + VERSION + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(prk)
