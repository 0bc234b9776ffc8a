"""One file with what somebody needs to help from afar: bounded, without secrets, with a list."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agent.redact import Redactor

MAX_ITEM_BYTES = 2 * 2**20
"""Of one part; the end of a longer one is kept, as the end of a log tells most."""

MAX_BUNDLE_BYTES = 16 * 2**20
"""Of all parts, before they are compressed."""

CONTENTS = "contents.json"


@dataclass(frozen=True, slots=True)
class Part:
    """What may be taken.

    Attributes:
        name: its file in the bundle.
        what: where it is from, for people.
        read: gives its text; its error is told in the list, and ends nothing.
    """

    name: str
    what: str
    read: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a part.

    Attributes:
        name: its file.
        what: where it is from.
        size: bytes in the bundle.
        cut: bytes left out.
        problem: why it is not there; empty if it is.
    """

    name: str
    what: str
    size: int = 0
    cut: int = 0
    problem: str = ""


def write(path: Path, parts: Iterable[Part], redactor: Redactor) -> list[Entry]:
    """Make the bundle.

    Args:
        path: a new file, made for this user only.
        parts: what to take, the most useful first: what is too much is left out at the end.
        redactor: takes out secrets.

    Returns:
        What it took, as its `contents.json` says it.

    Raises:
        OutputError: the file is there already, or cannot be written.
    """
    taken: dict[str, bytes] = {}
    entries: list[Entry] = []
    left = MAX_BUNDLE_BYTES
    for part in parts:
        entry, content = _take(part, redactor, min(left, MAX_ITEM_BYTES))
        entries.append(entry)
        if not entry.problem:
            taken[part.name] = content
            left -= len(content)
    listing = {
        "schema": "vigia.support-bundle/1",
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "secrets_hidden": redactor.hidden,
        "parts": [asdict(entry) for entry in entries],
    }
    taken = {CONTENTS: json.dumps(listing, indent=2).encode(), **taken}
    _save(path, taken)
    return entries


def _take(part: Part, redactor: Redactor, room: int) -> tuple[Entry, bytes]:
    if room <= 0:
        problem = f"the bundle has its {MAX_BUNDLE_BYTES} bytes already"
        return Entry(part.name, part.what, problem=problem), b""
    try:
        text = part.read()
    except Exception as error:  # noqa: BLE001 - a part is supervised: a broken device is what it is for
        problem = " ".join(redactor.text(f"{type(error).__name__}: {error}").split())[:500]
        return Entry(part.name, part.what, problem=problem), b""
    content = redactor.text(text).encode("utf-8", "replace")
    cut = max(0, len(content) - room)
    return Entry(part.name, part.what, len(content) - cut, cut), content[cut:]


def _save(path: Path, files: dict[str, bytes]) -> None:
    folder = path.name.removesuffix(".tar.gz")
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size, info.mode, info.mtime = len(content), 0o600, int(time.time())
                archive.addfile(info, io.BytesIO(content))
    except FileExistsError as error:
        raise OutputError(f"{path} exists already; give another name by --output") from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
