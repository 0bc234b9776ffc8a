"""Tells how updates go: every change at once, progress now and then."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.update.record import RESTING, State
from agent.wire.buildstate import shortened
from agent.wire.schema import UPDATE_STATE
from agent.wire.updatestate import UpdateState, encode_update_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.update.record import Record
    from agent.wire.topics import Topics

TELL_PERCENT = 5.0
TELL_EVERY_S = 10.0
"""Progress is told when either has passed."""


class Teller:
    """Publishes the state of each slot's update, retained.

    Args:
        retain: keeps a message told: topic, payload, schema.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        key_level: where the device keeps its keys.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        retain: Callable[[str, bytes, str], None],
        topics: Topics,
        *,
        device: str,
        boot: str,
        key_level: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._retain = retain
        self._topics = topics
        self._device = device
        self._boot = boot
        self._key_level = key_level
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._told: dict[str, tuple[UpdateState, float]] = {}
        self._refusals: Counter[str] = Counter()
        self._last_refusal = ""

    def record(self, record: Record, note: str = "") -> None:
        """Tell where an update stands; `note` is told where the record has no reason."""
        self._tell(
            UpdateState(
                slot=record.slot,
                state=record.state.value,
                campaign=record.campaign,
                digest=record.digest,
                family=record.family,
                version=record.version,
                counter=record.counter,
                release_counter=record.release_counter,
                attempt=record.attempt,
                reason=record.reason or note,
                figures=json.loads(record.figures),
                key_level=self._key_level,
            )
        )

    def progress(self, slot: str, step: str, done: int, total: int, rate: float = 0.0) -> None:
        """Tell how a step of the state told last goes, if that is news."""
        with self._lock:
            if slot not in self._told:
                return
            before, at = self._told[slot]
            state = replace(
                before,
                step=step,
                done=done,
                total=total,
                rate=rate,
                eta_s=(total - done) / rate if rate else None,
            )
            news = step != before.step or state.percent - before.percent >= TELL_PERCENT
            if not news and self._clock() - at < TELL_EVERY_S:
                return
        self._tell(state)

    def refused(self, what: str, reason: str) -> None:
        """Count what was refused before it came to a record; told with telemetry."""
        with self._lock:
            self._refusals[what] += 1
            self._last_refusal = f"{what}: {shortened(reason)}"

    def under_way(self) -> list[str]:
        """Slots whose update has not ended, and what it is at, for people."""
        with self._lock:
            told = [state for state, _ in self._told.values()]
        return [
            f"{state.slot}: {state.state.lower()}"
            + (f" {state.percent:.0f} %" if state.total else "")
            for state in told
            if State(state.state) not in RESTING
        ]

    def counters(self) -> dict[str, object]:
        """Plain values for telemetry: what was refused since the start, and why at last."""
        with self._lock:
            counts: dict[str, object] = {"refused": dict(self._refusals)}
            if self._last_refusal:
                counts["last_refusal"] = self._last_refusal
            return counts

    def _tell(self, state: UpdateState) -> None:
        payload = encode_update_state(state, device=self._device, boot=self._boot, ts=self._wall())
        with self._lock:
            self._told[state.slot] = (state, self._clock())
        self._retain(self._topics.update_state(state.slot), payload, UPDATE_STATE)
