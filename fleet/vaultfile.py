"""The file of a private key that a passphrase opens.

JSON: kind, public key, and the private key as PKCS#8 under AES-256-GCM, with a key that scrypt
makes of the passphrase. Kind and public key are bound to it, so neither can be changed.

PKCS#8's own encryption is not used because the library makes it with 2,048 rounds of PBKDF2, which
a graphics card tries out by the million; a guess at this one costs 128 MiB and a third of a second.
"""

from __future__ import annotations

import json
import secrets
import unicodedata
from typing import TYPE_CHECKING, Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_public_key,
)
from pydantic import Field
from securesystemslib.signer import SSlibKey

from agent.bundle.strict import Document

if TYPE_CHECKING:
    from typing import TypeAlias

    from securesystemslib.signer import Key

    PrivateKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12

SCRYPT_N = 2**17
SCRYPT_R = 8
SCRYPT_P = 1
"""128 MiB a guess: OWASP's first choice for scrypt. Written into each file; others are refused, so
that no file can ask for a terabyte."""

Kind = Literal["ed25519", "p256"]
Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=1000)]


class KeyFile(Document):
    """The content of a file.

    Attributes:
        public: PEM.
        salt: of scrypt, 16 bytes.
        nonce: of AES-256-GCM, 12 bytes.
        sealed: ciphertext and tag.
    """

    schema_id: Literal["vigia.vault-key/1"] = Field(default="vigia.vault-key/1", alias="schema")
    kind: Kind
    public: Annotated[str, Field(max_length=1000)]
    kdf: Literal["scrypt-n131072-r8-p1"] = "scrypt-n131072-r8-p1"
    salt: Hex
    nonce: Hex
    sealed: Hex

    def key(self) -> Key:
        """The public key.

        Raises:
            ValueError: it is none, or of another kind.
        """
        key = SSlibKey.from_crypto(load_pem_public_key(self.public.encode()))
        if (self.kind == "ed25519") != (key.keytype == "ed25519"):
            raise ValueError("another kind of key")
        return key


def generate(kind: Kind) -> PrivateKey:
    """Make a private key."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def new_salt() -> bytes:
    """A salt."""
    return secrets.token_bytes(SALT_BYTES)


def derive(passphrase: str, salt: bytes) -> bytes:
    """The key that a passphrase stands for; takes a third of a second and 128 MiB.

    However the terminal has composed its accents, it is the same passphrase.
    """
    kdf = Scrypt(salt, KEY_BYTES, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    # From the environment come bytes of any kind.
    return kdf.derive(unicodedata.normalize("NFC", passphrase).encode(errors="surrogateescape"))


def close(private: PrivateKey, salt: bytes, key: bytes) -> KeyFile:
    """Encrypt a private key with a key that was derived with `salt`."""
    kind: Kind = "ed25519" if isinstance(private, ed25519.Ed25519PrivateKey) else "p256"
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    plain = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    nonce = secrets.token_bytes(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain, _bound(kind, public.decode()))
    return KeyFile(
        kind=kind,
        public=public.decode(),
        salt=salt.hex(),
        nonce=nonce.hex(),
        sealed=sealed.hex(),
    )


def open_file(file: KeyFile, key: bytes) -> PrivateKey:
    """Decrypt a private key.

    Raises:
        ValueError: another passphrase closed it, or it was altered.
    """
    try:
        nonce, sealed = bytes.fromhex(file.nonce), bytes.fromhex(file.sealed)
        plain = AESGCM(key).decrypt(nonce, sealed, _bound(file.kind, file.public))
    except InvalidTag:
        raise ValueError("it does not open") from None
    private = load_der_private_key(plain, None)
    if not isinstance(private, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        raise ValueError("another kind of key")  # noqa: TRY004 - damage, not a wrong call
    return private


def _bound(kind: Kind, public: str) -> bytes:
    return json.dumps(["vigia.vault-key/1", kind, public]).encode()
