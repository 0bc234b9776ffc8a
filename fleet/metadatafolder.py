"""The controller's TUF metadata on disk: every file is whole, also after a power cut.

    metadata/N.root.json, N.targets.json, N.snapshot.json    never change once something names them
    metadata/accepted.json     which root and targets are fully signed: {"root": 2, "targets": 5}
    metadata/timestamp.json    names the snapshot, which names the rest: what is published
    pending/root.json, targets.json    signing requests; ROLE.KEYID.sig.json: signatures

Replacing one of the two files that name others is what makes a change real.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engines.durable import read_bounded, sync_folder, write_new
from engines.filelock import folder_lock
from fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MAX_FILE_BYTES = 4 * 2**20

LOCK_TIMEOUT_S = 10.0

ACCEPTED = "accepted.json"


def replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file, mode 0600: the old or the new one is there, never less.

    Raises:
        FleetError: the disk refuses.
    """
    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(work, data)
        try:
            work.rename(path)
        except OSError:
            work.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise FleetError(f"{path} cannot be written: {error}") from error


class MetadataFolder:
    """Reads and writes the files.

    Args:
        folder: made, mode 0700, at the first change.
    """

    def __init__(self, folder: Path) -> None:
        self.metadata = folder / "metadata"
        self.pending = folder / "pending"
        self._folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that changes anything here.

        Raises:
            FleetError: another does, or the folder cannot be made.
        """
        try:
            for folder in (self._folder, self.metadata, self.pending):
                folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
            with folder_lock(self._folder, LOCK_TIMEOUT_S):
                yield
        except OSError as error:
            raise FleetError(f"the folder {self._folder} cannot be used: {error}") from error

    def read(self, path: Path) -> bytes | None:
        """A file's content; None if there is no such file.

        Raises:
            FleetError: it cannot be read.
        """
        try:
            data = read_bounded(path, MAX_FILE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FleetError(f"{path} cannot be read: {error}") from error
        if data is None:
            raise FleetError(f"{path} is larger than any file that belongs there")
        return data

    def metadata_file(self, name: str) -> bytes:
        """A file of metadata that something names.

        Raises:
            FleetError: it cannot be read, or is not there.
        """
        data = self.read(self.metadata / name)
        if data is None:
            raise FleetError(f"{self.metadata / name} is missing; put it back from a backup")
        return data

    def accepted(self) -> dict[str, int]:
        """Versions of the fully signed root and targets; empty before there are any."""
        data = self.read(self.metadata / ACCEPTED)
        if data is None:
            return {}
        try:
            value = json.loads(data)
            return {"root": int(value["root"]), "targets": int(value["targets"])}
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(
                f"{self.metadata / ACCEPTED} is damaged; put it back from a backup"
            ) from error

    def accept(self, root: int, targets: int) -> None:
        """Say which root and targets are fully signed; their files must be there."""
        text = json.dumps({"root": root, "targets": targets})
        replace(self.metadata / ACCEPTED, text.encode())

    def discard(self, paths: Collection[Path]) -> None:
        """Remove files that nothing names any more."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise FleetError(f"{path} cannot be removed: {error}") from error

    def prune(self, named: Collection[str]) -> None:
        """Remove snapshots and targets that are not `named`, and what a crash has left."""
        stale = [
            path
            for pattern in ("*.snapshot.json", "*.targets.json")
            for path in self.metadata.glob(pattern)
            if path.name not in named
        ]
        torn = [path for part in (self.metadata, self.pending) for path in part.glob(".*.json.*")]
        self.discard([*stale, *torn])
