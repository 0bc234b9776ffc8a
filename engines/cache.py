"""A bounded folder of files derived from models, safe against power cuts and corruption.

A file's name carries the digest of its own content, so a torn or altered file is found out before
it is used, deleted, and made again. The cache is a convenience: whatever fails here is logged and
work goes on without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

MAX_ENTRIES = 8
"""Files kept; the least recently used go first. A device runs one to a few models."""

KEY_HEX = 32
"""Hexadecimal digits of a key, and of the content digest, in a file name."""


class BlobCache:
    """The folder; made with mode 0700 at the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(*parts: bytes) -> str:
        """Digest of everything that the cached content depends on."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.hexdigest()[:KEY_HEX]

    def find(self, key: str) -> Path | None:
        """The intact file for `key`, or None; a damaged one is removed."""
        try:
            for path in sorted(self._folder.glob(f"{key}-*.bin")):
                if path.stem == f"{key}-{_digest(path)}":
                    os.utime(path)
                    return path
                log.warning("cache file %s is damaged; it is removed and made anew", path)
                path.unlink()
        except OSError as error:
            log.warning(
                "cache folder %s cannot be read (%s); going on without", self._folder, error
            )
        return None

    @contextlib.contextmanager
    def write(self, key: str) -> Iterator[Path | None]:
        """Give a place to write a file to; it enters the cache when the block ends without error.

        Yields:
            The place, or None if the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            work = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._folder))
        except OSError as error:
            log.warning("cache folder %s cannot be written (%s)", self._folder, error)
            yield None
            return
        place = work / "blob"
        try:
            yield place
            if place.is_file():
                self._keep(key, place)
        except OSError as error:
            log.warning("cache file for %s could not be kept: %s", key, error)
        finally:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
                work.rmdir()

    def _keep(self, key: str, place: Path) -> None:
        place.chmod(0o600)
        with place.open("rb") as file:
            os.fsync(file.fileno())
        place.replace(self._folder / f"{key}-{_digest(place)}.bin")
        entries = sorted(self._folder.glob("*.bin"), key=lambda p: p.stat().st_mtime)
        for old in entries[:-MAX_ENTRIES]:
            old.unlink()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:KEY_HEX]
