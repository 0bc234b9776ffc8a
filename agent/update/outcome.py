"""What follows from the outcome of an update, written in the transaction of its record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.update.failpoints import hit
from agent.update.record import Record, State, installed_of
from agent.update.rows import (
    INSTALLED_COLUMNS,
    PAST_COLUMNS,
    RECORD_COLUMNS,
    counter_text,
    installed_values,
    put,
    record_values,
)

if TYPE_CHECKING:
    import sqlite3

    from agent.update.reader import Reader
    from agent.update.record import Installed

MAX_HISTORY = 1000
MAX_REPORTS = 256
"""Each needs a message from the controller first, so a broker that is away does not fill this."""

MAX_QUARANTINE = 4096
"""Bundles; the oldest are forgotten first."""


def conclude(
    connection: sqlite3.Connection, reader: Reader, record: Record, report: bytes | None
) -> None:
    """Write what is active and what was before, floor, quarantine, history and report.

    Args:
        connection: within the record's transaction.
        reader: on the same connection.
        record: with an outcome.
        report: signed, if it was already.
    """
    active = reader.active(record.slot)
    if record.state is State.COMMITTED:
        _commit(connection, record, active)
    elif active is not None and active.counter == record.counter:
        # An operator's rollback: a failed trial is of an assignment that was never active.
        _restore(connection, record.slot)
    if record.blame:
        connection.execute(
            "INSERT OR IGNORE INTO quarantine (digest, reason, at) VALUES (?, ?, ?)",
            (record.digest, record.reason, record.changed),
        )
    _remember(connection, record, report)
    _bound(connection)


def _commit(connection: sqlite3.Connection, record: Record, active: Installed | None) -> None:
    installed = installed_of(record)
    if active is not None and active.digest == record.digest:
        # It was active already: only the assignment is new, and what was before stays.
        installed = replace(
            active, campaign=record.campaign, counter=record.counter, grant=record.grant
        )
    else:
        connection.execute(
            "DELETE FROM installed WHERE slot = ? AND place = 'previous'", (record.slot,)
        )
        connection.execute(
            "UPDATE installed SET place = 'previous' WHERE slot = ? AND place = 'active'",
            (record.slot,),
        )
        connection.execute("INSERT OR IGNORE INTO ways_back VALUES (?)", (record.slot,))
    columns = (*INSTALLED_COLUMNS, "place")
    put(connection, "installed", columns, (*installed_values(installed), "active"))
    hit("C8.committing")
    connection.execute(
        "INSERT INTO floors VALUES (?, ?) ON CONFLICT (family) "
        "DO UPDATE SET floor = max(floor, excluded.floor)",
        (record.family, counter_text(record.release_counter)),
    )


def _restore(connection: sqlite3.Connection, slot: str) -> None:
    connection.execute("DELETE FROM installed WHERE slot = ? AND place = 'active'", (slot,))
    hit("C9.restoring")
    connection.execute("UPDATE installed SET place = 'active' WHERE slot = ?", (slot,))
    connection.execute("DELETE FROM ways_back WHERE slot = ?", (slot,))


def _remember(connection: sqlite3.Connection, record: Record, report: bytes | None) -> None:
    row = dict(zip(RECORD_COLUMNS, record_values(record), strict=True))
    columns = PAST_COLUMNS[1:]
    number = put(connection, "history", columns, tuple(row[name] for name in columns))
    put(connection, "reports", ("id", "envelope"), (number, report))


def _bound(connection: sqlite3.Connection) -> None:
    for table, limit in (
        ("reports", MAX_REPORTS),
        ("history", MAX_HISTORY),
        ("quarantine", MAX_QUARANTINE),
    ):
        connection.execute(
            f"DELETE FROM {table} WHERE id NOT IN "  # noqa: S608 - our own names
            f"(SELECT id FROM {table} ORDER BY id DESC LIMIT ?)",
            (limit,),
        )
