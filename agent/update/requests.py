"""What people ask of updates at the device's own command line: small files in the state folder.

`vigia update rollback` leaves a file; the agent looks for files at every beat and when it starts,
so it does not matter whether it runs. Whoever may write into the folder (mode 0700) may ask; no
signature is needed. A request names the bundle that is to go: it is out of date once another one is
active, so it never works twice.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agent.bundle.strict import Document, Name, Sha256, Text, WallTime, decode
from agent.errors import ManifestError, StoreError
from engines.durable import read_bounded, sync_folder, write_new

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "requests"
SUFFIX = ".json"
MAX_BYTES = 4096
MAX_REQUESTS = 64


class Request(Document):
    """A request to roll a slot back.

    Attributes:
        slot: model slot.
        digest: of the bundle that is active and is to go.
        reason: who asked and why, for people.
        at: when, seconds since the epoch.
    """

    schema_id: Literal["vigia.rollback-request/1"] = Field(
        default="vigia.rollback-request/1", alias="schema"
    )
    slot: Name
    digest: Sha256
    reason: Text
    at: WallTime


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that was found: `request` is None where the file holds none."""

    path: Path
    request: Request | None


def ask(state: Path, request: Request) -> None:
    """Leave a request, in the place of an older one for the same slot.

    Raises:
        StoreError: it cannot be written.
    """
    folder = state / FOLDER
    path = folder / f"{request.slot}{SUFFIX}"
    temporary = folder / f".{request.slot}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        write_new(temporary, request.encode())
        _give_to_owner_of(state, folder, temporary)
        temporary.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(f"{path}: cannot leave the request: {error.strerror or error}") from error


def waiting(state: Path) -> tuple[Waiting, ...]:
    """Requests that were not answered yet, by slot.

    Raises:
        StoreError: the folder cannot be read.
    """
    folder = state / FOLDER
    try:
        paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
        return tuple(Waiting(path, _read(path)) for path in paths[:MAX_REQUESTS])
    except OSError as error:
        raise StoreError(f"{folder}: cannot read: {error.strerror or error}") from error


def done(found: Waiting) -> None:
    """A request was carried out, or cannot be: remove it.

    Raises:
        StoreError: it cannot be removed.
    """
    try:
        found.path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{found.path}: cannot remove: {error.strerror or error}") from error


def _give_to_owner_of(state: Path, *paths: Path) -> None:
    """The agent must be able to read and remove what root has left for it."""
    if os.geteuid() == 0:
        owner = state.stat()
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _read(path: Path) -> Request | None:
    try:
        content = read_bounded(path, MAX_BYTES)
        request = None if content is None else decode(Request, content, path.name, MAX_BYTES)
    except (OSError, ManifestError):
        return None
    return request if request is not None and path.name == f"{request.slot}{SUFFIX}" else None
