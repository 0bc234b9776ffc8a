"""Writes the payload of a bundle: each byte is encrypted and hashed once, as it passes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from agent.bundle.cipher import Encryptor, room_for
from agent.bundle.index import BlockIndex
from agent.bundle.manifest import ALGORITHM, BLOCK_BYTES, CiphertextRef, Encryption

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

READ_BYTES = 4 * BLOCK_BYTES
"""Handled at once: it and what becomes of it stay in a processor's cache."""


def encryption_of(context: str, salt: bytes, commitment: bytes) -> Encryption:
    """What a manifest says of the cipher."""
    return Encryption(
        alg=ALGORITHM,
        context=context,
        salt=base64.b64encode(salt).decode(),
        commitment=base64.b64encode(commitment).decode(),
    )


class PayloadWriter:
    """A payload while it is written: hashed block by block, and whole.

    If the block that it is used in fails, no part of the file stays.

    Args:
        path: the file to make, mode 0600.
        key: 32 bytes, used for nothing else.
        context: what is encrypted; its UTF-8 bytes count.

    Raises:
        OSError: the file is there, or the disk refuses.
    """

    def __init__(self, path: Path, key: bytes, context: str) -> None:
        self._cipher = Encryptor(key, context.encode())
        self.encryption = encryption_of(context, self._cipher.salt, self._cipher.commitment)
        """What the manifest is to say of the cipher."""
        self._room = memoryview(bytearray(room_for(READ_BYTES)))
        self._whole = hashlib.sha256()
        self._block = hashlib.sha256()
        self._missing = BLOCK_BYTES
        self._hashes = bytearray()
        self._length = 0
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if error is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def write(self, plaintext: memoryview) -> None:
        """Encrypt and write at most `READ_BYTES`.

        Raises:
            OSError: the disk refuses.
        """
        if not self._length:
            self._put(memoryview(self._cipher.header))
        self._put(self._room[: self._cipher.update_into(plaintext, self._room)])

    def finish(self) -> BlockIndex:
        """Write the last chunk, down to the disk; nothing may follow.

        Raises:
            OSError: the disk refuses.
        """
        self.write(memoryview(b""))
        self._put(memoryview(self._cipher.finish()))
        if self._missing != BLOCK_BYTES:
            self._hashes += self._block.digest()
        os.fsync(self._file.fileno())
        return BlockIndex(BLOCK_BYTES, self._length, bytes(self._hashes))

    @property
    def ciphertext(self) -> CiphertextRef:
        """What the manifest is to say of the finished payload."""
        return CiphertextRef(sha256=self._whole.hexdigest(), length=self._length)

    def _put(self, data: memoryview) -> None:
        self._whole.update(data)
        self._length += len(data)
        begin = 0
        while begin < len(data):
            part = data[begin : begin + self._missing]
            self._block.update(part)
            self._missing -= len(part)
            begin += len(part)
            if not self._missing:
                self._hashes += self._block.digest()
                self._block, self._missing = hashlib.sha256(), BLOCK_BYTES
        while data:
            data = data[self._file.write(data) :]
