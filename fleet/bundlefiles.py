"""A sealed bundle in the fleet folder, as the pieces that the broker holds."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from agent.bundle.manifest import (
    BLOCK_BYTES,
    MAX_MANIFEST_BYTES,
    bundle_id,
    digest_of,
    parse_manifest,
)
from agent.errors import StoreError
from engines.durable import open_regular, read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.manifest import Manifest


class BundleFiles:
    """Reads the pieces of one bundle; nothing of it is kept in memory but its manifest.

    Args:
        folder: where `manifest.json`, `index` and `payload` lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The manifest as signed.

        Raises:
            StoreError: it cannot be read.
        """
        return self._whole("manifest.json", MAX_MANIFEST_BYTES)

    @cached_property
    def manifest(self) -> Manifest:
        """What it says.

        Raises:
            ManifestError: it is none.
        """
        return parse_manifest(self.manifest_bytes)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, hexadecimal."""
        return digest_of(self.manifest_bytes)

    @property
    def id(self) -> str:
        """The topic level of the bundle."""
        return bundle_id(self.digest)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.manifest.index.blocks

    def index(self) -> bytes:
        """The index.

        Raises:
            StoreError: it cannot be read, or is not of the length that the manifest says.
        """
        content = self._whole("index", self.manifest.index.length)
        if len(content) != self.manifest.index.length:
            raise StoreError(f"{self.folder / 'index'} is cut off; bring it back from a backup")
        return content

    def block(self, number: int) -> bytes:
        """One block.

        Raises:
            StoreError: there is no such block, or it cannot be read.
        """
        if not 0 <= number < self.blocks:
            raise StoreError(f"bundle {self.id} has no block {number}")
        offset = number * BLOCK_BYTES
        length = min(BLOCK_BYTES, self.manifest.ciphertext.length - offset)
        path = self.folder / "payload"
        try:
            descriptor = open_regular(path)
            try:
                content = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(content) != length:
            raise StoreError(f"{path} is cut off; bring it back from a backup")
        return content

    def _whole(self, name: str, limit: int) -> bytes:
        path = self.folder / name
        try:
            content = read_bounded(path, limit)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
        if content is None:
            raise StoreError(f"{path} is larger than {limit} bytes; bring it back from a backup")
        return content
