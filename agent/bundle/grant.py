"""Grants: a bundle's data key, sealed for one device and one assignment.

HPKE in base mode, no associated data. What binds a grant to its place is HPKE's `info`:

    b"vigia/grant/1" 00 | SHA-256 of the manifest, 32 bytes | length of the device id, 2 bytes
    | device id | counter of the assignment, 8 bytes

Numbers are big-endian. The sealed form is `enc || ciphertext`.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import TYPE_CHECKING

from agent.bundle.cipher import KEY_BYTES
from agent.bundle.documents import Grant
from agent.bundle.kem import SUITES, key_id, load_public
from agent.errors import BundleError, ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.documents import Kem

PURPOSE = b"vigia/grant/1\x00"
DIGEST_BYTES = 32


def grant_info(manifest_digest_hex: str, device: str, counter: int) -> bytes:
    """What a grant is bound to.

    Args:
        manifest_digest_hex: SHA-256 of the manifest.
        device: device id.
        counter: of the assignment.

    Raises:
        ManifestError: the digest is none, or a value has no room in its field.
    """
    name = device.encode()
    try:
        digest = bytes.fromhex(manifest_digest_hex)
        info = PURPOSE + digest + struct.pack(">H", len(name)) + name + struct.pack(">Q", counter)
    except (ValueError, struct.error):
        info = digest = b""
    if len(digest) != DIGEST_BYTES:
        raise ManifestError(
            "a grant is bound to the SHA-256 of a manifest, a device id and a counter of 64 bits"
        )
    return info


def seal_grant(kem: Kem, public: bytes, data_key: bytes, info: bytes) -> Grant:
    """Seal a data key for a device.

    Args:
        kem: which suite the device's key is of.
        public: the device's public key, see `agent.bundle.kem`.
        data_key: 32 bytes.
        info: see `grant_info`.

    Raises:
        ManifestError: `public` is no such key, or `data_key` has another length.
    """
    _check_length(data_key)
    recipient = load_public(kem, public)
    try:
        sealed = SUITES[kem].encrypt(data_key, recipient, info)
    except ValueError:
        # Points of low order: what they encrypt anybody can read.
        raise ManifestError(f"a public key of the kind {kem} is one of the unsafe ones") from None
    return Grant(kem=kem, key_id=key_id(public), sealed=base64.b64encode(sealed).decode())


def open_sealed(grant: Grant, kem: Kem, public: bytes, decrypt: Callable[[bytes], bytes]) -> bytes:
    """Open a grant with a device's key.

    Args:
        grant: from outside.
        kem: of the device.
        public: of the device.
        decrypt: HPKE's opening of `enc || ciphertext` with the private key; raises `ValueError` if
            it does not open.

    Returns:
        The data key.

    Raises:
        BundleError: the grant is for another key, for another purpose, or damaged.
    """
    if grant.kem != kem:
        raise BundleError(f"the grant is for a key of the kind {grant.kem}, this device has {kem}")
    if grant.key_id != key_id(public):
        raise BundleError(
            f"the grant is for the key {grant.key_id}, this device has {key_id(public)}; if its "
            "keys were made anew, enrol it again"
        )
    try:
        data_key = decrypt(base64.b64decode(grant.sealed, validate=True))
    except (binascii.Error, ValueError):
        raise BundleError(
            "the grant does not open: it is of another device, bundle or assignment, or damaged"
        ) from None
    _check_length(data_key)
    return data_key


def _check_length(data_key: bytes) -> None:
    if len(data_key) != KEY_BYTES:
        raise ManifestError(f"a data key has {KEY_BYTES} bytes, not {len(data_key)}")
