"""What the state of updates says; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.update.record import RESTING, Installed, Past, Record
from agent.update.rows import (
    INSTALLED_COLUMNS,
    PAST_COLUMNS,
    RECORD_COLUMNS,
    installed_from,
    past_from,
    record_from,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEFAULT_HISTORY = 100

_RECORD = ", ".join(RECORD_COLUMNS)
_INSTALLED = ", ".join(INSTALLED_COLUMNS)
_PAST = ", ".join(PAST_COLUMNS)
_UNSIGNED = "SELECT id FROM reports WHERE envelope IS NULL"


class Rows(Protocol):
    """Something that answers queries."""

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """What a query finds."""


@dataclass(frozen=True, slots=True)
class Banned:
    """A bundle that is not tried again, why, and since when (seconds since the epoch)."""

    digest: str
    reason: str
    at: float


class Reader:
    """Reads; every method raises StoreError where that fails.

    Args:
        source: `agent.update.database.ReadOnly` or `Database`.
    """

    def __init__(self, source: Rows) -> None:
        self._rows = source

    def records(self) -> tuple[Record, ...]:
        """Of every slot that was ever assigned something, by name."""
        rows = self._rows.rows(f"SELECT {_RECORD} FROM records ORDER BY slot")  # noqa: S608 - ours
        return tuple(record_from(row) for row in rows)

    def record(self, slot: str) -> Record:
        """Of one slot; one in IDLE if nothing was ever assigned."""
        query = f"SELECT {_RECORD} FROM records WHERE slot = ?"  # noqa: S608 - ours
        rows = self._rows.rows(query, (slot,))
        return record_from(rows[0]) if rows else Record(slot)

    def active(self, slot: str) -> Installed | None:
        """The committed bundle of a slot; None: the configured model."""
        return self._installed(slot, "active")

    def previous(self, slot: str) -> Installed | None:
        """The bundle before that; None where there is none, see `way_back`."""
        return self._installed(slot, "previous")

    def way_back(self, slot: str) -> bool:
        """Whether there is a step back, as each commit gives one.

        It leads to `previous`, or where that is None to the configured model.
        """
        return bool(self._rows.rows("SELECT 1 FROM ways_back WHERE slot = ?", (slot,)))

    def rollback_refusal(self, slot: str) -> str | None:
        """Why a slot cannot be rolled back now; None if it can be."""
        record, active = self.record(slot), self.active(slot)
        if record.state not in RESTING:
            return f"an update of {slot} is under way ({record.state.value}); wait for its end"
        if active is None:
            return f"{slot} serves its configured model: there is nothing to go back from"
        if not self.way_back(slot):
            return f"{slot}: what was there before {active.version} is not kept any more"
        previous = self.previous(slot)
        if previous is not None and previous.release_counter < active.min_release_counter:
            return (
                f"{slot}: the release keys bar the way from {active.version} back to "
                f"{previous.version}: release {previous.release_counter} is below "
                f"{active.min_release_counter}"
            )
        return None

    def kept(self) -> frozenset[str]:
        """Digests of the bundles whose files must not be removed: active, previous, under way."""
        installed = {row[0] for row in self._rows.rows("SELECT digest FROM installed")}
        under_way = {r.digest for r in self.records() if r.state not in RESTING}
        return frozenset(installed | under_way)

    def floor(self, family: str) -> int:
        """The least release counter that a new assignment of this family may have."""
        rows = self._rows.rows("SELECT floor FROM floors WHERE family = ?", (family,))
        return int(rows[0][0]) if rows else 0

    def floors(self) -> dict[str, int]:
        """All floors, by family."""
        rows = self._rows.rows("SELECT family, floor FROM floors ORDER BY family")
        return {family: int(floor) for family, floor in rows}

    def last_counter(self, slot: str) -> int:
        """The counter of the newest assignment that was accepted for a slot; 0 if none was."""
        rows = self._rows.rows("SELECT counter FROM counters WHERE slot = ?", (slot,))
        return int(rows[0][0]) if rows else 0

    def quarantined(self, digest: str) -> str | None:
        """Why a bundle must not be tried again; None if it may be."""
        rows = self._rows.rows("SELECT reason FROM quarantine WHERE digest = ?", (digest,))
        return str(rows[0][0]) if rows else None

    def quarantine(self) -> tuple[Banned, ...]:
        """Bundles that are not tried again, the newest first."""
        rows = self._rows.rows("SELECT digest, reason, at FROM quarantine ORDER BY id DESC")
        return tuple(Banned(*row) for row in rows)

    def history(self, limit: int = DEFAULT_HISTORY) -> tuple[Past, ...]:
        """How updates ended, the newest first."""
        query = f"SELECT {_PAST} FROM history ORDER BY id DESC LIMIT ?"  # noqa: S608 - ours
        return tuple(past_from(row) for row in self._rows.rows(query, (limit,)))

    def reports(self) -> tuple[tuple[int, str, bytes], ...]:
        """Signed reports that were not sent yet, the oldest first: number, slot and envelope."""
        query = (
            "SELECT reports.id, slot, envelope FROM reports JOIN history USING (id) "
            "WHERE envelope IS NOT NULL ORDER BY reports.id"
        )
        return tuple((number, slot, envelope) for number, slot, envelope in self._rows.rows(query))

    def unsigned_reports(self) -> tuple[Past, ...]:
        """Outcomes whose report was not signed yet, the oldest first."""
        query = f"SELECT {_PAST} FROM history WHERE id IN ({_UNSIGNED}) ORDER BY id"  # noqa: S608 - ours
        return tuple(past_from(row) for row in self._rows.rows(query))

    def paused(self) -> bool:
        """Whether an operator has paused updates."""
        return bool(self._rows.rows("SELECT 1 FROM settings WHERE name = 'paused'"))

    def settings_seen(self) -> tuple[int, str]:
        """Counter and SHA-256 of the newest signed settings that were taken; (0, "") for none."""
        rows = self._rows.rows("SELECT value FROM settings WHERE name = 'settings_seen'")
        counter, _, digest = str(rows[0][0]).partition(":") if rows else ("0", "", "")
        return int(counter), digest

    def _installed(self, slot: str, place: str) -> Installed | None:
        query = f"SELECT {_INSTALLED} FROM installed WHERE slot = ? AND place = ?"  # noqa: S608 - ours
        rows = self._rows.rows(query, (slot, place))
        return installed_from(rows[0]) if rows else None
