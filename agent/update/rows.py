"""Records and installed bundles as rows of the database, and back."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any

from agent.errors import StoreError
from agent.update.record import Installed, Record, State
from agent.update.schema import COUNTER_DIGITS

RECORD_COLUMNS = tuple(field.name for field in fields(Record))
INSTALLED_COLUMNS = tuple(field.name for field in fields(Installed))

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
    try:
        values = dict(zip(RECORD_COLUMNS, row, strict=True))
        return Record(
            **{
                **values,
                **{name: int(values[name]) for name in _COUNTERS},
                "state": State(values["state"]),
                "blame": bool(values["blame"]),
            }
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"state.db: a record cannot be read: {error}") from error


def installed_from(row: tuple[Any, ...]) -> Installed:
    """The installed bundle of a row.

    Raises:
        StoreError: the row holds something else.
    """
    try:
        values = dict(zip(INSTALLED_COLUMNS, row, strict=True))
        return Installed(**{**values, **{name: int(values[name]) for name in _COUNTERS}})
    except (TypeError, ValueError) as error:
        raise StoreError(f"state.db: an installed bundle cannot be read: {error}") from error


def _values(columns: tuple[str, ...], values: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(
        counter_text(value)
        if name in _COUNTERS and isinstance(value, int)
        else value.value
        if isinstance(value, State)
        else value
        for name, value in zip(columns, values, strict=True)
    )
