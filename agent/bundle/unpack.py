"""Writes the files of a bundle's plaintext as it is decrypted, and checks each."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from agent.bundle.manifest import FOLDERS
from agent.errors import BundleError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from agent.bundle.manifest import BundleFile

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

TOP = ""
"""Stands for the folder itself among its folders."""


class FileWriter:
    """Takes the plaintext piece by piece; each file is new, mode 0600, and below the folder.

    If the block that it is used in fails, all that it made is removed.

    Args:
        folder: empty; once opened, its descriptor is used, whatever the path becomes.
        files: of a manifest: without gaps, and with names that cannot leave the folder.

    Raises:
        StoreError: the folder cannot be used, or is not empty.
    """

    def __init__(self, folder: Path, files: Sequence[BundleFile]) -> None:
        self._folder = folder
        self._waiting = list(reversed(files))
        self._current: BundleFile | None = None
        self._output = -1
        self._left = 0
        self._digest = hashlib.sha256()
        self._made: list[tuple[int, str]] = []
        self._places: dict[str, int] = {}
        self.done = 0
        """Bytes written."""
        try:
            self._places[TOP] = os.open(folder, FOLDER_FLAGS)
            for name in sorted({FOLDERS[f.role] for f in files if f.role in FOLDERS}):
                os.mkdir(name, 0o700, dir_fd=self._places[TOP])
                self._places[name] = os.open(name, FOLDER_FLAGS, dir_fd=self._places[TOP])
        except OSError as error:
            self._remove()
            self._close()
            raise self._refused(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._remove()
        self._close()

    def write(self, data: memoryview) -> None:
        """Take the next piece.

        Raises:
            BundleError: a file is not what the manifest says.
            StoreError: the folder cannot be written.
        """
        try:
            while data:
                while not self._left:
                    self._next()
                count = os.write(self._output, data[: self._left])
                self._digest.update(data[:count])
                self._left -= count
                self.done += count
                data = data[count:]
        except OSError as error:
            raise self._refused(error) from error

    def finish(self) -> None:
        """Say that this was all.

        Raises:
            BundleError: a file is not what the manifest says, or is missing.
            StoreError: the folder cannot be written.
        """
        try:
            while self._waiting and not self._left:
                self._next()
        except OSError as error:
            raise self._refused(error) from error
        if self._left:
            raise BundleError("the payload ends before its last file does")
        self._check()

    def _next(self) -> None:
        self._check()
        if not self._waiting:
            raise BundleError("the payload goes on after its last file")
        file = self._current = self._waiting.pop()
        place = self._places[FOLDERS.get(file.role, TOP)]
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
        self._output = os.open(file.name, FILE_FLAGS, 0o600, dir_fd=place)
        self._made.append((place, file.name))
        self._left = file.length
        self._digest = hashlib.sha256()

    def _check(self) -> None:
        file = self._current
        if file is not None and self._digest.hexdigest() != file.sha256:
            raise BundleError(f"{file.name}: its SHA-256 is not the manifest's")

    def _remove(self) -> None:
        for place, name in self._made:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
        for name in self._places:
            if name != TOP:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=self._places[TOP])

    def _close(self) -> None:
        for descriptor in (self._output, *self._places.values()):
            if descriptor >= 0:
                os.close(descriptor)

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write the bundle's files into {self._folder}: {error.strerror}; it must be an "
            "empty folder in memory, with room for all of them"
        )
