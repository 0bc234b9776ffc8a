"""Seals bytes with a key of this device: nobody else can read them or make ones that open.

Loading an engine runs what the file says. A sealed file that opens was made on this device, for the
purpose that its associated data names. Format, version 1:

    magic "VIGIASEAL" | version, 1 byte | nonce, 12 bytes | AES-256-GCM ciphertext and 16-byte tag

The associated data of the cipher are the magic, the version and the caller's. The nonce is random:
at 2^32 seals with one key the chance of a repeat is still 2^-32 (NIST SP 800-38D, 8.3).
Sealing and opening hold the content and its sealed form in memory at once: twice its size.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engines.durable import open_regular, replace_file
from engines.errors import PlanError
from engines.filelock import folder_lock

if TYPE_CHECKING:
    from pathlib import Path

HEADER = b"VIGIASEAL\x01"
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = len(HEADER) + NONCE_BYTES + TAG_BYTES

MAX_CONTENT_BYTES = 2**31 - 1 - TAG_BYTES
"""The cipher's library takes no more at once; engines for edge devices are far smaller."""

CREATE_TIMEOUT_S = 10.0
"""How long another process may take to create the key."""


class SealKeyError(PlanError):
    """The device's key cannot be used; says nothing of what was sealed with it."""


class KeyProvider(Protocol):
    """Where the device's key is kept."""

    def key(self) -> bytes:
        """Give the key, 32 bytes, the same each time.

        Raises:
            SealKeyError: there is none and none can be made, or it is not safe to use.
        """


class FileKey:
    """A key in a file that only its owner can read; made at first use.

    If the file is lost, a new key is made, and all that was sealed before is foreign.

    Args:
        path: the file; its folder is made with mode 0700 if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def key(self) -> bytes:
        """See `KeyProvider`."""
        try:
            try:
                return self._read()
            except FileNotFoundError:
                return self._create()
        except OSError as error:
            raise SealKeyError(
                f"the key {self._path} cannot be read or made ({error}); "
                "give this user the right to it, or another state folder"
            ) from error

    def _read(self) -> bytes:
        with os.fdopen(open_regular(self._path), "rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_mode & 0o077:
                raise SealKeyError(
                    f"the key {self._path} can be read by others (mode "
                    f"{facts.st_mode & 0o777:04o}); say `chmod 600 {self._path}`"
                )
            if facts.st_uid not in (os.geteuid(), 0):
                raise SealKeyError(
                    f"the key {self._path} belongs to user {facts.st_uid}, not to {os.geteuid()}; "
                    f"say `chown {os.geteuid()} {self._path}`"
                )
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise SealKeyError(
                f"the key {self._path} is damaged: {KEY_BYTES} bytes are expected; "
                "remove it, and a new one is made"
            )
        return key

    def _create(self) -> bytes:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with folder_lock(folder, CREATE_TIMEOUT_S):
            if self._path.exists():
                return self._read()
            key = secrets.token_bytes(KEY_BYTES)
            replace_file(self._path, key)
            return key


class Sealer:
    """Seals and opens with one provider's key.

    Args:
        provider: asked for the key at each use.
    """

    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider

    def seal(self, content: bytes, aad: bytes) -> bytes:
        """Seal `content` for the purpose that `aad` names.

        Raises:
            SealKeyError: the key cannot be used.
            PlanError: the content is larger than `MAX_CONTENT_BYTES`.
        """
        if len(content) > MAX_CONTENT_BYTES:
            raise PlanError(
                f"{len(content)} bytes are too many to seal; at most {MAX_CONTENT_BYTES} can be"
            )
        nonce = secrets.token_bytes(NONCE_BYTES)
        return HEADER + nonce + self._cipher().encrypt(nonce, content, HEADER + aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Give back what was sealed on this device with the same `aad`.

        Raises:
            SealKeyError: the key cannot be used.
            PlanError: the bytes are not that.
        """
        begin = len(HEADER) + NONCE_BYTES
        if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(HEADER):
            raise PlanError("it is not sealed in a form that this version knows")
        if len(sealed) > MAX_CONTENT_BYTES + OVERHEAD_BYTES:
            raise PlanError("it is larger than anything that was sealed here")
        try:
            nonce, body = sealed[len(HEADER) : begin], memoryview(sealed)[begin:]
            return self._cipher().decrypt(nonce, body, HEADER + aad)
        except InvalidTag:
            raise PlanError(
                "it was altered, belongs to another key, or was sealed on another device"
            ) from None

    def _cipher(self) -> AESGCM:
        key = self._provider.key()
        if len(key) != KEY_BYTES:
            raise SealKeyError(f"the key provider gave {len(key)} bytes, not {KEY_BYTES}")
        return AESGCM(key)
