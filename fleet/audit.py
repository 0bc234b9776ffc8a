"""The audit log on disk: every action of an operator, so that a later change of it is seen.

`audit/log.jsonl` grows by a line for each action (`fleet.auditchain`). Each line is signed with the
operator's own key, so whoever runs the controller cannot write one for somebody else.
`audit/head.json`, signed with the fleet's audit key, says how far the log goes, and the database
remembers the same. Who holds folder, database *and* the passphrase of the audit key can cut entries
off at the end, but only together with what everybody did since: note the head elsewhere from time
to time, and have `verify` look whether the log still holds it.

A line is on the disk before its head, and the head before the database: after a power cut the log
may be ahead of them, never behind. A last line without its end was never acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from agent.bundle.strict import decode
from agent.errors import ManifestError
from engines.durable import open_regular, read_bounded, sync_folder
from engines.filelock import folder_lock
from fleet.auditchain import (
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    NOTHING,
    Entry,
    Head,
    check_head,
    follow,
    line_hash,
    parse_line,
    signed_head,
    signed_line,
)
from fleet.database import read_setting, write_setting
from fleet.errors import AuditError, FleetError
from fleet.metadatafolder import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from securesystemslib.signer import Key, Signer
    from sqlalchemy.orm import Session

    from fleet.auditchain import Actor
    from fleet.database import Database

LOG = "log.jsonl"
HEAD = "head.json"
HEAD_SETTING = "audit.head"
LOCK_TIMEOUT_S = 10.0

CONTROLLER = "controller"
"""Stands as the operator where the controller acted by itself, e.g. ended a campaign."""


class Audit:
    """Writes and judges the log.

    Args:
        folder: its own, made with mode 0700 at the first entry.
        database: where the head is remembered too.
        head_signer: gives the audit key's signer when it is needed.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        head_signer: Callable[[], Signer],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._database = database
        self._head_signer = head_signer
        self._now = now

    def record(self, session: Session, actor: Actor, action: str, details: dict[str, Any]) -> Entry:
        """Add an entry; call it last in the transaction that does what it tells of.

        Args:
            session: the caller's transaction.
            actor: who.
            action: what, e.g. "device.enrol".
            details: on what; no secrets.

        Raises:
            AuditError: the log does not fit its head; nothing is written.
            FleetError: the disk refuses.
        """
        signer = self._head_signer()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with folder_lock(self._folder, LOCK_TIMEOUT_S):
                head = self._mended(session, signer.public_key)
                count, last, size = (head.count, head.hash, head.size) if head else (0, NOTHING, 0)
                entry = Entry(
                    number=count + 1,
                    previous=last,
                    at=int(self._now()),
                    operator=actor.name,
                    action=action,
                    details=details,
                )
                line = signed_line(entry, actor.signer)
                self._append(line, size)
                new = signed_head(count + 1, line_hash(line), size + len(line), signer)
                replace(self._folder / HEAD, new.encode())
        except OSError as error:
            raise FleetError(
                f"the audit log in {self._folder} cannot be written: {error}"
            ) from error
        write_setting(session, HEAD_SETTING, {"count": new.count, "hash": new.hash})
        return entry

    def entries(self) -> Iterator[Entry]:
        """All entries, not verified.

        Raises:
            AuditError: a line is no entry.
        """
        for number, line in enumerate(self._lines(), 1):
            yield parse_line(line, number).entry

    def head(self) -> Head:
        """How far the log goes, not verified.

        Raises:
            AuditError: there is no head, or it is damaged.
        """
        head = self._read_head()
        if head is None:
            raise AuditError(f"the audit log has no head: {self._folder / HEAD} is missing")
        return head

    def verify(
        self,
        keys: Mapping[str, Sequence[Key]],
        audit_key: Key,
        noted: tuple[int, str] | None = None,
    ) -> Head:
        """Look at the whole log.

        Args:
            keys: of all who ever could act, by name.
            audit_key: the fleet's.
            noted: count and hash of a head that was seen before.

        Returns:
            The head.

        Raises:
            AuditError: the log was tampered with; says where it is seen.
        """
        head = self.head()
        check_head(head, audit_key)
        known = self._known()
        if known and known[0] > head.count:
            raise AuditError(
                f"the head of the audit log was put back: it says {head.count} entries, "
                f"the database {known[0]}"
            )
        marks = {
            who: mark
            for who, mark in {
                "its head": (head.count, head.hash),
                "the database": known,
                "the head that was noted": noted,
            }.items()
            if mark
        }
        last = 0
        for link in follow(self._lines(), keys):
            last = link.entry.number
            for who, (count, wanted) in marks.items():
                if count == last and wanted != link.hash:
                    raise AuditError(
                        f"audit entry {last} is another than the one that {who} knows: the log "
                        "was written anew"
                    )
        for who, (count, _wanted) in marks.items():
            if count > last:
                raise AuditError(
                    f"the audit log was cut off: it has {last} entries, {who} says {count}"
                )
        return head

    def _mended(self, session: Session, audit_key: Key) -> Head | None:
        """The head to go on from, after what a power cut has left was put right."""
        head = self._read_head()
        known = read_setting(session, HEAD_SETTING, None)
        path = self._folder / LOG
        size = path.stat().st_size if path.exists() else 0
        if head is None:
            if known is not None or size > MAX_LINE_BYTES:
                raise AuditError(f"the audit log has no head: {self._folder / HEAD} is missing")
        else:
            check_head(head, audit_key)
            if (known and known["count"] > head.count) or size < head.size:
                raise AuditError(
                    "the audit log was cut off; see `vigia fleet audit verify`, and bring it back "
                    "from a backup"
                )
        expected = head.size if head else 0
        return head if size == expected else self._rolled_forward(head)

    def _rolled_forward(self, head: Head | None) -> Head | None:
        """Take in lines that are on the disk but not in the head yet."""
        whole = list(self._lines())
        links = list(follow(whole, None))
        size = sum(map(len, whole))
        if head and (len(links) < head.count or links[head.count - 1].hash != head.hash):
            raise AuditError("the audit log does not fit its head; see `vigia fleet audit verify`")
        return signed_head(len(links), links[-1].hash, size, self._head_signer()) if links else None

    def _append(self, line: bytes, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._folder / LOG, flags, 0o600), "wb", buffering=0) as file:
            # What lies behind `size` was begun before a power cut.
            file.truncate(size)
            file.seek(size)
            if file.write(line) != len(line):
                raise OSError("the disk took only a part; it is full")
            os.fsync(file.fileno())
        sync_folder(self._folder)

    def _lines(self) -> Iterator[bytes]:
        """The whole lines."""
        try:
            descriptor = open_regular(self._folder / LOG)
        except FileNotFoundError:
            return
        except OSError as error:
            raise AuditError(f"the audit log cannot be read: {error}") from error
        with os.fdopen(descriptor, "rb") as file:
            yield from _whole_lines(file)

    def _read_head(self) -> Head | None:
        path = self._folder / HEAD
        with contextlib.suppress(FileNotFoundError):
            try:
                return decode(
                    Head, read_bounded(path, MAX_HEAD_BYTES) or b"", str(path), MAX_HEAD_BYTES
                )
            except ManifestError as error:
                raise AuditError(f"{error}; it was altered") from None
        return None

    def _known(self) -> tuple[int, str] | None:
        with self._database.reading() as session:
            value = read_setting(session, HEAD_SETTING, None)
        return (value["count"], value["hash"]) if value else None


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
        yield line
    if len(line) > MAX_LINE_BYTES:
        raise AuditError(f"the audit log has a line of more than {MAX_LINE_BYTES} bytes")
