"""Key encapsulation of grants: HPKE (RFC 9180) in two suites, and how their keys are written.

- `p256`: DHKEM(P-256, HKDF-SHA256). Public key: the uncompressed point, 65 bytes.
- `mlkem768-x25519`: the hybrid MLKEM768-X25519 of draft-ietf-hpke-pq, against those who record now
  and decrypt later. Public key: ML-KEM-768's 1,184 bytes, then X25519's 32.

Both with HKDF-SHA256 and AES-256-GCM.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PublicKey,
    Suite,
)

from agent.errors import ManifestError

if TYPE_CHECKING:
    from agent.bundle.documents import Kem

KEY_ID_DIGITS = 16
MLKEM768_PUBLIC_BYTES = 1184

SUITES: dict[Kem, Suite] = {
    "p256": Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    "mlkem768-x25519": Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}


def key_id(public: bytes) -> str:
    """How grants name a public key: SHA-256 of its bytes, the first 16 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()[:KEY_ID_DIGITS]


def load_public(kem: Kem, public: bytes) -> ec.EllipticCurvePublicKey | MLKEM768X25519PublicKey:
    """Read a public key.

    Raises:
        ManifestError: the bytes are none of this kind.
    """
    try:
        if kem == "p256":
            # Sees to it that the point is on the curve.
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
        return MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public[:MLKEM768_PUBLIC_BYTES]),
            x25519.X25519PublicKey.from_public_bytes(public[MLKEM768_PUBLIC_BYTES:]),
        )
    except ValueError:
        raise ManifestError(f"{len(public)} bytes are no public key of the kind {kem}") from None
