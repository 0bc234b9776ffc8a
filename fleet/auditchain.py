"""The audit log's format: signed entries, each of which holds the hash of the one before. Pure.

One line an entry:

    {"entry":{"number":1,"previous":"000…","at":…,"operator":"ann","action":"fleet.init",
              "details":{…}},"key_id":"…","signature":"…"}

`previous` is the SHA-256 of the whole line before, its newline included (of nothing: 64 zeros), so
a line cannot be changed, removed, added or put elsewhere. The signature is over the purpose and
the canonical JSON of `entry` (keys sorted, no spaces, ASCII). The head says how many lines there
are, so that none can be cut off at the end.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from securesystemslib.signer import Signature

from agent.bundle.strict import Counter, Document, Name, Sha256, WallTime, decode
from agent.errors import ManifestError
from fleet.errors import AuditError, FleetError
from fleet.signing import verifies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from securesystemslib.signer import Key, Signer

NOTHING = "0" * 64
"""Stands for the line before the first."""

MAX_LINE_BYTES = 2**20
"""Has room for the names of 10,000 devices."""

MAX_HEAD_BYTES = 4096

ENTRY_PURPOSE = b"vigia/audit-entry/1\x00"
HEAD_PURPOSE = b"vigia/audit-head/1\x00"

HexText = Annotated[str, Field(pattern=r"^[0-9a-f]{2,4096}$")]
Action = Annotated[str, Field(pattern=r"^[a-z]+(\.[a-z-]+)+$", max_length=64)]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with the key that proves it."""

    name: str
    signer: Signer


class Entry(Document):
    """What was done.

    Attributes:
        number: from 1, without gaps.
        previous: SHA-256 of the line before.
        operator: who did it.
        action: e.g. "device.enrol".
        details: JSON values, no secrets.
    """

    number: Annotated[int, Field(ge=1)]
    previous: Sha256
    at: WallTime
    operator: Name
    action: Action
    details: dict[str, Any]


class Line(Document):
    """An entry with its signature."""

    entry: Entry
    key_id: HexText
    signature: HexText


class Head(Document):
    """How far the log goes, signed by the audit key.

    Attributes:
        count: entries.
        hash: SHA-256 of the last line.
        size: bytes of all lines.
    """

    schema_id: Literal["vigia.audit-head/1"] = Field(default="vigia.audit-head/1", alias="schema")
    count: Counter
    hash: Sha256
    size: Counter
    key_id: HexText
    signature: HexText

    def text(self) -> str:
        """As people note it: COUNT:HASH."""
        return f"{self.count}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Link:
    """An entry at its place in the chain; `hash` is of its line."""

    entry: Entry
    hash: str


def line_hash(line: bytes) -> str:
    """SHA-256 of a line, hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def signed_line(entry: Entry, signer: Signer) -> bytes:
    """The line of an entry, with its newline.

    Raises:
        FleetError: it is too long.
    """
    signature = signer.sign(ENTRY_PURPOSE + _canonical(entry))
    line = Line(entry=entry, key_id=signature.keyid, signature=signature.signature)
    data = line.encode() + b"\n"
    if len(data) > MAX_LINE_BYTES:
        raise FleetError(
            f"an audit entry of {len(data)} bytes is longer than the {MAX_LINE_BYTES} allowed; "
            "do it in smaller parts"
        )
    return data


def parse_line(line: bytes, number: int) -> Line:
    """Read a line.

    Raises:
        AuditError: it is none.
    """
    try:
        return decode(Line, line, f"audit entry {number}", MAX_LINE_BYTES)
    except ManifestError as error:
        raise AuditError(f"{error}; it was altered") from None


def signed_head(count: int, last: str, size: int, signer: Signer) -> Head:
    """The head of a log of `count` entries, the last of which has the hash `last`."""
    signature = signer.sign(_head_content(count, last, size))
    return Head(
        count=count, hash=last, size=size, key_id=signature.keyid, signature=signature.signature
    )


def check_head(head: Head, key: Key) -> None:
    """See that the audit key signed the head.

    Raises:
        AuditError: it did not.
    """
    content = _head_content(head.count, head.hash, head.size)
    if head.key_id != key.keyid or not verifies(
        key, Signature(head.key_id, head.signature), content
    ):
        raise AuditError("the head of the audit log is not signed by the fleet's audit key")


def follow(lines: Iterable[bytes], keys: Mapping[str, Sequence[Key]] | None) -> Iterator[Link]:
    """Go along the chain.

    Args:
        lines: with their newlines.
        keys: of all who ever could act, by name; None: look at the chain alone.

    Yields:
        Each entry, once it fits what was before it.

    Raises:
        AuditError: an entry does not fit.
    """
    previous = NOTHING
    for number, line in enumerate(lines, 1):
        parsed = parse_line(line, number)
        entry = parsed.entry
        if entry.number != number or entry.previous != previous:
            raise AuditError(
                f"audit entry {number} does not follow the one before: an entry was altered, "
                "removed, added or moved"
            )
        if keys is not None:
            _check_signed(parsed, keys.get(entry.operator, ()))
        previous = line_hash(line)
        yield Link(entry, previous)


def _check_signed(line: Line, keys: Sequence[Key]) -> None:
    entry = line.entry
    content = ENTRY_PURPOSE + _canonical(entry)
    signature = Signature(line.key_id, line.signature)
    if not any(key.keyid == line.key_id and verifies(key, signature, content) for key in keys):
        raise AuditError(
            f"audit entry {entry.number} says that {entry.operator} did {entry.action}, but no key "
            f"of {entry.operator} signed it"
        )


def _canonical(entry: Entry) -> bytes:
    return json.dumps(
        entry.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _head_content(count: int, last: str, size: int) -> bytes:
    return HEAD_PURPOSE + json.dumps([count, last, size], separators=(",", ":")).encode()
