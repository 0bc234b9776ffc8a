"""Records and installed bundles as rows of the database, and back."""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

from agent.errors import StoreError
from agent.update.record import Installed, Past, Record, State
from agent.update.schema import COUNTER_DIGITS

if TYPE_CHECKING:
    import sqlite3

RECORD_COLUMNS = tuple(field.name for field in fields(Record))
INSTALLED_COLUMNS = tuple(field.name for field in fields(Installed))
PAST_COLUMNS = tuple(field.name for field in fields(Past))

_COUNTERS = frozenset({"counter", "release_counter", "min_release_counter"})


def counter_text(value: int) -> str:
    """A counter as it is kept."""
    return f"{value:0{COUNTER_DIGITS}d}"


def record_values(record: Record) -> tuple[object, ...]:
    """The row of a record, in the order of `RECORD_COLUMNS`."""
    return _values(RECORD_COLUMNS, astuple(record))


def installed_values(installed: Installed) -> tuple[object, ...]:
    """The row of an installed bundle, in the order of `INSTALLED_COLUMNS`."""
    return _values(INSTALLED_COLUMNS, astuple(installed))


def record_from(row: tuple[Any, ...]) -> Record:
    """The record of a row.

    Raises:
        StoreError: the row holds something else.
    """
    values = _read(RECORD_COLUMNS, row)
    return Record(**{**values, "blame": bool(values["blame"])})


def installed_from(row: tuple[Any, ...]) -> Installed:
    """The installed bundle of a row.

    Raises:
        StoreError: the row holds something else.
    """
    return Installed(**_read(INSTALLED_COLUMNS, row))


def past_from(row: tuple[Any, ...]) -> Past:
    """The line of the history of a row.

    Raises:
        StoreError: the row holds something else.
    """
    return Past(**_read(PAST_COLUMNS, row))


def put(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], values: tuple[object, ...]
) -> int:
    """Write a row in the place of the one with the same key; gives its number.

    A row of a table whose key is a number is never replaced: that it is there is an error.
    """
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    verb = "INSERT" if table in {"history", "reports"} else "INSERT OR REPLACE"
    done = connection.execute(f"{verb} INTO {table} ({names}) VALUES ({marks})", values)
    return done.lastrowid or 0


def _read(columns: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(columns, row, strict=True))
    try:
        for name in _COUNTERS & values.keys():
            values[name] = int(values[name])
        if "state" in values:
            values["state"] = State(values["state"])
        # Read here, so that damage is told as damage.
        json.loads(values.get("figures", "{}"))
    except (TypeError, ValueError) as error:
        raise StoreError(f"state.db: a row cannot be read: {error}; it is damaged") from error
    return values


def _values(columns: tuple[str, ...], values: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_value(name, value) for name, value in zip(columns, values, strict=True))


def _value(name: str, value: object) -> object:
    if isinstance(value, State):
        return value.value
    if name in _COUNTERS and isinstance(value, int):
        return counter_text(value)
    return value
