"""The trust message: the whole current TUF metadata in one retained message.

    {"schema": "vigia.trust/1", "files": {"1.root.json": "<text>", "timestamp.json": "<text>", ...}}

Names are those of a TUF repository with consistent snapshots: `N.ROLE.json`, but `timestamp.json`.
Nothing in it is trusted yet; `agent.bundle.trust` sees to that.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agent.bundle.strict import Document, decode
from agent.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "vigia.trust/1"

MAX_MESSAGE_BYTES = 2**20
MAX_FILES = 300
"""Roots since the first, and one file of each other role."""

ROLE_BYTES = {
    "root": 64 * 2**10,
    "timestamp": 16 * 2**10,
    "snapshot": 64 * 2**10,
    "targets": 768 * 2**10,
}
"""The largest file of each role. Targets grow by about 170 bytes with each bundle."""

TIMESTAMP = "timestamp.json"

_NAME = re.compile(r"(?:[1-9][0-9]{0,14}\.(root|snapshot|targets)|(timestamp))\.json")


class _Message(Document):
    schema_id: Literal["vigia.trust/1"] = Field(alias="schema")
    files: dict[str, str] = Field(max_length=MAX_FILES)


def encode(files: Mapping[str, bytes]) -> bytes:
    """Make a message.

    Args:
        files: JSON texts by name.

    Raises:
        ManifestError: a file has a name that does not belong there, is no text or is too large, or
            the whole is.
    """
    if len(files) > MAX_FILES:
        raise ManifestError(f"trust message: {len(files)} files are more than {MAX_FILES}")
    for name, data in files.items():
        _check(name, len(data))
    try:
        texts = {name: data.decode() for name, data in files.items()}
    except UnicodeDecodeError as error:
        raise ManifestError(f"trust message: a file is no UTF-8 text: {error}") from None
    message = json.dumps(
        {"schema": SCHEMA, "files": texts}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    if len(message) > MAX_MESSAGE_BYTES:
        raise ManifestError(
            f"trust message: {len(message)} bytes are more than the {MAX_MESSAGE_BYTES} allowed; "
            "withdraw bundles that no device is to get any more"
        )
    return message


def parse(data: bytes) -> dict[str, bytes]:
    """Read a message: files by name, none of them trusted.

    Raises:
        ManifestError: it is not one, or larger than a message or a file may be.
    """
    message = decode(_Message, data, "trust message", MAX_MESSAGE_BYTES)
    files = {}
    for name, text in message.files.items():
        try:
            content = text.encode()
        except UnicodeEncodeError:
            raise ManifestError("trust message: a file is no text") from None
        _check(name, len(content))
        files[name] = content
    return files


def file_name(role: str, version: int) -> str:
    """The name of a role's file."""
    return TIMESTAMP if role == "timestamp" else f"{version}.{role}.json"


def _check(name: str, length: int) -> None:
    found = _NAME.fullmatch(name)
    if not found:
        raise ManifestError(f"trust message: no file can be called {name[:64]!r}")
    role = found[1] or found[2]
    if length > ROLE_BYTES[role]:
        raise ManifestError(
            f"trust message: {name} has {length} bytes, at most {ROLE_BYTES[role]} are allowed"
        )
