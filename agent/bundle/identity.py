"""What a device shows to be enrolled: its public keys, signed by itself.

The signature proves that whoever made it holds the signing key, and that nothing was changed on the
way; it does not say *which* device that is. For that a person compares the fingerprint, as the
device shows it, with the one that the controller shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.bundle.cipher import KEY_BYTES
from agent.bundle.documents import IDENTITY, Identity
from agent.bundle.dsse import key_of_pem, sign, unverified, verify
from agent.bundle.grant import seal_grant
from agent.errors import ManifestError

if TYPE_CHECKING:
    from agent.bundle.keys import DeviceKeys

FINGERPRINT_DIGITS = 32
GROUP_DIGITS = 4

PURPOSE = b"vigia/fingerprint/1\x00"


def make_identity(device: str, keys: DeviceKeys, csr: str, hw_class: str) -> bytes:
    """The identity of a device, in an envelope.

    Args:
        device: device id.
        keys: of the device.
        csr: PEM of the certificate request of its TLS key.
        hw_class: hardware class.

    Raises:
        KeyStoreError: the signing key cannot be used.
    """
    identity = Identity(
        device=device,
        kem=keys.kem,
        kem_key=base64.b64encode(keys.kem_public).decode(),
        sign_key=keys.sign_public_pem,
        csr=csr,
        key_level=keys.level,
        hw_class=hw_class,
    )
    return sign(IDENTITY, identity, [keys.signer()])


def read_identity(data: bytes) -> Identity:
    """Read an identity that its own signing key has signed, with usable public keys.

    Whether the certificate request is this device's is for the authority to say.

    Raises:
        ManifestError: it is none, or a key is not what it should be.
        SignatureError: it was altered.
    """
    claimed = unverified(data, Identity)
    identity = verify(data, IDENTITY, Identity, [key_of_pem(claimed.sign_key)])
    try:
        public = base64.b64decode(identity.kem_key, validate=True)
    except binascii.Error:
        raise ManifestError("identity: kem_key is no base64") from None
    # Rather now than in a roll-out.
    seal_grant(identity.kem, public, bytes(KEY_BYTES), b"")
    _tls_key(identity)
    return identity


def fingerprint(identity: Identity) -> str:
    """What people compare: a hash of the device id and of all its public keys.

    It is the same each time a device shows itself, as long as it keeps its keys: eight groups of
    four hexadecimal digits, which nobody can make another device's keys fit.
    """
    parts = [identity.device, identity.kem, identity.kem_key, identity.sign_key]
    text = json.dumps([*parts, _tls_key(identity).hex()], separators=(",", ":"))
    digits = hashlib.sha256(PURPOSE + text.encode()).hexdigest()[:FINGERPRINT_DIGITS]
    return "-".join(
        digits[start : start + GROUP_DIGITS] for start in range(0, FINGERPRINT_DIGITS, GROUP_DIGITS)
    )


def _tls_key(identity: Identity) -> bytes:
    try:
        request = x509.load_pem_x509_csr(identity.csr.encode())
        return request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        raise ManifestError("identity: csr is no certificate request") from None
