"""How the state of updates is shown: one set of values, as JSON and as tables."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from agent.commands.output import output, plain
from agent.errors import StoreError
from agent.update import fallback
from agent.update.record import Installed, Record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.update.reader import Reader
    from agent.update.record import Past

SHOWN_HEX = 12
"""Digits of a digest that are shown; JSON has all."""

STYLES = {"COMMITTED": "green", "REJECTED": "yellow", "ROLLED_BACK": "yellow", "IDLE": "dim"}
UNDER_WAY = "cyan"

INSTALLED_KEYS = ("digest", "family", "version", "release_counter", "campaign", "counter", "at")
RECORD_KEYS = (
    "campaign",
    "counter",
    "digest",
    "family",
    "version",
    "release_counter",
    "attempt",
    "reason",
    "started",
    "changed",
)


def status_of(reader: Reader, slots: Iterable[str]) -> dict[str, Any]:
    """The whole state.

    Args:
        reader: of the state folder.
        slots: that are configured; others that were assigned something are shown too.
    """
    records = {slot: Record(slot) for slot in slots} | {r.slot: r for r in reader.records()}
    return {
        "slots": [
            _slot(
                record,
                reader.active(name),
                reader.previous(name),
                way_back=reader.rollback_refusal(name) is None,
            )
            for name, record in sorted(records.items())
        ],
        "floors": reader.floors(),
        "quarantine": [asdict(banned) for banned in reader.quarantine()],
        "reports_waiting": len(reader.reports()) + len(reader.unsigned_reports()),
        "paused": reader.paused(),
        "problem": None,
    }


def status_without(folder: Path, slots: Iterable[str], problem: str) -> dict[str, Any]:
    """What is known where the state cannot be read: what serves, from the fallback.

    Raises:
        StoreError: there is no state there at all.
    """
    if not fallback.exists(folder):
        raise StoreError(problem)
    try:
        active = {installed.slot: installed for installed in fallback.read(folder)}
    except StoreError as error:
        active, problem = {}, f"{problem}\n{error}"
    names = sorted({*slots, *active})
    return {
        "slots": [
            {**_slot(Record(name), active.get(name), None, way_back=False), "state": None}
            for name in names
        ],
        "floors": {},
        "quarantine": [],
        "reports_waiting": 0,
        "paused": False,
        "problem": problem,
    }


def history_of(reader: Reader, limit: int) -> list[dict[str, Any]]:
    """Updates that ended, the newest first."""
    return [_past(past) for past in reader.history(limit)]


def print_status(shown: dict[str, Any]) -> None:
    """The state for people."""
    console = output()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("slot", "serves", "before", "last update", "of", "since", "reason"):
        table.add_column(heading, overflow="fold")
    for slot in shown["slots"]:
        update = f"{slot['family']} {slot['version']}".strip() or slot["digest"][:SHOWN_HEX]
        table.add_row(
            plain(slot["slot"]),
            plain(_name(slot["active"], "configured model")),
            plain(_name(slot["previous"], "configured model" if slot["way_back"] else "-")),
            Text(slot["state"] or "unknown", STYLES.get(slot["state"], UNDER_WAY)),
            plain(update or "-"),
            _clock(slot["changed"]),
            plain(slot["reason"] or "-"),
        )
    console.print(table if shown["slots"] else "nothing was ever assigned to this device")
    for family, floor in shown["floors"].items():
        console.print(plain(f"floor of {family}: release {floor}"))
    for banned in shown["quarantine"]:
        console.print(plain(f"never again: {banned['digest'][:SHOWN_HEX]}, {banned['reason']}"))
    if shown["reports_waiting"]:
        console.print(f"{shown['reports_waiting']} reports wait for the broker")
    if shown["paused"]:
        console.print(Text("updates are paused by an operator", "yellow"))
    if shown["problem"]:
        console.print(Text(shown["problem"], "bold red"))


def print_history(shown: list[dict[str, Any]]) -> None:
    """The history for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ended", "slot", "outcome", "of", "campaign", "took", "attempts", "reason"):
        table.add_column(
            heading, overflow="fold", justify="right" if heading in {"took", "attempts"} else "left"
        )
    for past in shown:
        table.add_row(
            _clock(past["changed"]),
            plain(past["slot"]),
            Text(past["state"], STYLES[past["state"]]),
            plain(f"{past['family']} {past['version']}".strip() or past["digest"][:SHOWN_HEX]),
            plain(past["campaign"]),
            f"{max(0.0, past['changed'] - past['started']):.0f} s",
            str(past["attempt"]),
            plain(past["reason"] or "-"),
        )
    output().print(table if shown else "no update has ended yet")


def _slot(
    record: Record, active: Installed | None, previous: Installed | None, *, way_back: bool
) -> dict[str, Any]:
    return {
        "slot": record.slot,
        "state": record.state.value,
        **{key: getattr(record, key) for key in RECORD_KEYS},
        "active": _installed(active),
        "previous": _installed(previous),
        "way_back": way_back,
    }


def _installed(installed: Installed | None) -> dict[str, Any] | None:
    return None if installed is None else {key: getattr(installed, key) for key in INSTALLED_KEYS}


def _past(past: Past) -> dict[str, Any]:
    return {**asdict(past), "state": past.state.value, "figures": json.loads(past.figures)}


def _name(installed: dict[str, Any] | None, otherwise: str) -> str:
    return otherwise if installed is None else f"{installed['family']} {installed['version']}"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"
