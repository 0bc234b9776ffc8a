"""A device's keys in the memory of the process, and how they are written as PEM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import SSlibKey

from agent.bundle.dsse import KeySigner
from agent.bundle.grant import open_sealed
from agent.bundle.kem import SUITES

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from securesystemslib.signer import Signer
    from typing_extensions import Self

    from agent.bundle.documents import Grant, Kem

    Parts: TypeAlias = (
        ec.EllipticCurvePrivateKey | tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]
    )

END = b"-----END PRIVATE KEY-----\n"


class KemKey:
    """A private key that grants are opened with.

    Args:
        parts: P-256's, or those of ML-KEM-768 and X25519.

    Attributes:
        kem: the suite.
        public: see `agent.bundle.kem`.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._private: ec.EllipticCurvePrivateKey | MLKEM768X25519PrivateKey
        self.kem: Kem
        if isinstance(parts, tuple):
            self.kem = "mlkem768-x25519"
            self._private = MLKEM768X25519PrivateKey(*parts)
            self.public = b"".join(part.public_key().public_bytes_raw() for part in parts)
        else:
            self.kem = "p256"
            self._private = parts
            self.public = parts.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )

    @classmethod
    def generate(cls, kem: Kem) -> Self:
        """Make one."""
        if kem == "p256":
            return cls(ec.generate_private_key(ec.SECP256R1()))
        return cls((mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()))

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read one.

        Raises:
            ValueError: it is none.
        """
        match [_private(part + END) for part in pem.split(END) if part.strip()]:
            case [ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()) as private]:
                return cls(private)
            case [mlkem.MLKEM768PrivateKey() as first, x25519.X25519PrivateKey() as second]:
                return cls((first, second))
        raise ValueError("neither a key of P-256, nor one of ML-KEM-768 and one of X25519")

    def pem(self) -> bytes:
        """PKCS#8; the hybrid's two keys one after the other."""
        if isinstance(self._parts, tuple):
            return b"".join(private_pem(part) for part in self._parts)
        return private_pem(self._parts)

    def decrypt(self, sealed: bytes, info: bytes) -> bytes:
        """HPKE's opening.

        Raises:
            ValueError: it does not open.
        """
        try:
            return SUITES[self.kem].decrypt(sealed, self._private, info)
        except InvalidTag:
            raise ValueError("it does not open") from None


class SoftKeys:
    """See `agent.bundle.keys.DeviceKeys`.

    Args:
        kem: opens grants.
        signing: ECDSA P-256.
    """

    level: Literal["L0"] = "L0"

    def __init__(self, kem: KemKey, signing: ec.EllipticCurvePrivateKey) -> None:
        self._kem = kem
        self._signing = signing
        self._key = SSlibKey.from_crypto(signing.public_key())

    @classmethod
    def generate(cls, kem: Kem = "p256") -> Self:
        """Make keys that nobody keeps."""
        return cls(KemKey.generate(kem), ec.generate_private_key(ec.SECP256R1()))

    @property
    def kem(self) -> Kem:
        """See `DeviceKeys`."""
        return self._kem.kem

    @property
    def kem_public(self) -> bytes:
        """See `DeviceKeys`."""
        return self._kem.public

    @property
    def sign_public_pem(self) -> str:
        """See `DeviceKeys`."""
        return str(self._key.keyval["public"])

    @property
    def key_id(self) -> str:
        """See `DeviceKeys`."""
        return self._key.keyid

    def open_grant(self, grant: Grant, info: bytes) -> bytes:
        """See `DeviceKeys`."""
        return open_sealed(
            grant, self.kem, self.kem_public, lambda sealed: self._kem.decrypt(sealed, info)
        )

    def sign(self, data: bytes) -> bytes:
        """See `DeviceKeys`."""
        return self._signing.sign(data, ec.ECDSA(hashes.SHA256()))

    def signer(self) -> Signer:
        """See `DeviceKeys`."""
        return KeySigner(self._key, self.sign)


def private_pem(
    key: ec.EllipticCurvePrivateKey | mlkem.MLKEM768PrivateKey | x25519.X25519PrivateKey,
) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def p256_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a key of P-256.

    Raises:
        ValueError: it is none.
    """
    key = _private(pem)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("not a key of P-256")


def _private(pem: bytes) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        # Encrypted keys give a TypeError.
        raise ValueError("not a key that can be read") from error
