"""A small copy of what is active, from which serving goes on when the state cannot be read.

It is never a source for what may be installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from agent.bundle.documents import Grant
from agent.bundle.strict import Counter, Document, Name, Sha256, Text, WallTime, decode
from agent.errors import ManifestError, StoreError
from agent.update.failpoints import hit
from agent.update.record import Installed
from engines.durable import read_bounded, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE = "fallback.json"

MAX_SLOTS = 64
MAX_BYTES = 2**20


class _Slot(Document):
    slot: Name
    digest: Sha256
    family: Text
    version: Text
    release_counter: Counter
    min_release_counter: Counter
    target: Text
    campaign: Text
    counter: Counter
    grant: Grant
    at: WallTime


class _Fallback(Document):
    schema_id: Literal["vigia.fallback/1"] = Field(default="vigia.fallback/1", alias="schema")
    active: Annotated[tuple[_Slot, ...], Field(max_length=MAX_SLOTS)]


def exists(folder: Path) -> bool:
    """Whether there is one, whole or not."""
    return os.path.lexists(folder / FILE)


def write(folder: Path, active: Iterable[Installed]) -> None:
    """Replace it; a power cut leaves the old one or the new one.

    Raises:
        StoreError: the disk refuses; the old one stays.
    """
    body = _Fallback(active=tuple(_slot(installed) for installed in active)).encode()
    content = body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"
    temporary = folder / f"{FILE}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        write_new(temporary, content)
        hit("fallback.written")
        temporary.replace(folder / FILE)
        sync_folder(folder)
    except OSError as error:
        raise StoreError(f"{folder / FILE}: cannot write: {error.strerror or error}") from error


def read(folder: Path) -> tuple[Installed, ...]:
    """What was active when it was written.

    Raises:
        StoreError: it is missing or damaged.
    """
    path = folder / FILE
    try:
        content = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error
    body, _, digest = (content or b"").rstrip(b"\n").partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise StoreError(f"{path}: damaged; the configured models serve")
    try:
        fallback = decode(_Fallback, body, FILE, MAX_BYTES)
    except ManifestError as error:
        raise StoreError(f"{path}: {error}; the configured models serve") from error
    return tuple(_installed(slot) for slot in fallback.active)


def _slot(installed: Installed) -> _Slot:
    return _Slot(
        slot=installed.slot,
        digest=installed.digest,
        family=installed.family,
        version=installed.version,
        release_counter=installed.release_counter,
        min_release_counter=installed.min_release_counter,
        target=installed.target,
        campaign=installed.campaign,
        counter=installed.counter,
        grant=decode(Grant, installed.grant, "grant", MAX_BYTES),
        at=max(0, int(installed.at)),
    )


def _installed(slot: _Slot) -> Installed:
    return Installed(
        slot=slot.slot,
        digest=slot.digest,
        family=slot.family,
        version=slot.version,
        release_counter=slot.release_counter,
        min_release_counter=slot.min_release_counter,
        target=slot.target,
        campaign=slot.campaign,
        counter=slot.counter,
        grant=slot.grant.encode(),
        at=float(slot.at),
    )
