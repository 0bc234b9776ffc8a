"""Where bundles lie sealed on the disk: `<folder>/<digest>/{manifest.json,index,payload,have}`.

Only ciphertext lies there. What was written is a claim that the reader checks: the manifest against
its digest, the index against the manifest, each block against the index (`agent.update.blockfile`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from agent.bundle.index import HASH_BYTES, HEADER
from agent.bundle.manifest import MAX_BLOCKS, MAX_MANIFEST_BYTES
from agent.bundle.seal import INDEX, MANIFEST, PAYLOAD
from agent.errors import StoreError
from agent.update.blockfile import BlockFile, open_rw
from engines.durable import read_bounded, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.bundle.index import BlockIndex

FOLDER = "bundles"
"""Below the state folder."""

HAVE = "have"
"""Map of the blocks that were written."""

MAX_INDEX_BYTES = HEADER.size + MAX_BLOCKS * HASH_BYTES


class Staging:
    """One bundle's place.

    Args:
        folder: of all bundles.
        digest: of the bundle's manifest, hexadecimal.

    Attributes:
        payload: the ciphertext.

    All methods raise StoreError where the disk refuses.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._bundles = folder
        self._folder = folder / digest
        self.payload = self._folder / PAYLOAD

    def put_manifest(self, data: bytes) -> None:
        """Keep the manifest, down to the disk."""
        self._put(MANIFEST, data)

    def put_index(self, data: bytes) -> None:
        """Keep the index, down to the disk."""
        self._put(INDEX, data)

    def manifest(self) -> bytes | None:
        """What was kept as the manifest, or None."""
        return self._read(MANIFEST, MAX_MANIFEST_BYTES)

    def index(self) -> bytes | None:
        """What was kept as the index, or None."""
        return self._read(INDEX, MAX_INDEX_BYTES)

    def allocate(self, length: int) -> None:
        """Have the disk give the payload all its room, before any of it comes; idempotent.

        Raises:
            StoreError: there is not so much room; what was taken is given back.
        """
        new = not self.payload.exists()
        try:
            self._make()
            with open_rw(self.payload) as descriptor:
                if os.fstat(descriptor).st_size > length:
                    os.ftruncate(descriptor, length)
                os.posix_fallocate(descriptor, 0, length)
        except OSError as error:
            if new:
                with contextlib.suppress(OSError):
                    self.payload.unlink()
            room = f"no room for {length / 2**20:.0f} MiB of ciphertext"
            raise self._error(room, error) from error

    def blocks(self, index: BlockIndex, stop: Callable[[], bool] = lambda: False) -> BlockFile:
        """The payload, for writing what of it is missing; reads what is there.

        Args:
            index: what its blocks must be.
            stop: asked now and then; true ends the reading early, with what was found so far.
        """
        self.allocate(index.ciphertext_length)
        try:
            return BlockFile(self.payload, self._folder / HAVE, index, stop)
        except OSError as error:
            raise self._error("the payload cannot be read", error) from error

    def sync(self) -> None:
        """Bring everything down to the disk."""
        try:
            for name in (PAYLOAD, HAVE):
                with contextlib.suppress(FileNotFoundError):
                    descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
            sync_folder(self._folder)
            sync_folder(self._bundles)
        except OSError as error:
            raise self._error("it cannot be brought down to the disk", error) from error

    def size(self) -> int:
        """Bytes of disk that it takes; 0 if there is nothing."""
        total = 0
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                total += path.lstat().st_blocks * 512
        return total

    def remove(self) -> None:
        """Remove all of it; idempotent."""
        try:
            shutil.rmtree(self._folder)
            sync_folder(self._bundles)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("it cannot be removed", error) from error

    def _make(self) -> None:
        self._bundles.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _put(self, name: str, data: bytes) -> None:
        part = self._folder / f"{name}.part"
        try:
            self._make()
            part.unlink(missing_ok=True)
            write_new(part, data)
            part.replace(self._folder / name)
            sync_folder(self._folder)
        except OSError as error:
            raise self._error(f"{name} cannot be written", error) from error

    def _read(self, name: str, limit: int) -> bytes | None:
        try:
            return read_bounded(self._folder / name, limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"{name} cannot be read", error) from error

    def _error(self, what: str, error: OSError) -> StoreError:
        return StoreError(f"{self._folder}: {what}: {error.strerror or error}; check the disk")
