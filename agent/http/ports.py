"""What is shown, as the rest of the agent gives it: callables that return plain values.

All may be called from any thread and return at once. A part that does not exist gives None, and is
then simply not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.detection import Result
    from agent.frame import Frame
    from agent.pipeline.stats import CameraStats

Values = Mapping[str, Any]
Look = Callable[[], Values | None]
Show = Callable[["Frame", "Result"], None]


def nothing() -> None:
    """A part that does not exist."""
    return


def _no_events() -> tuple[Values, ...]:
    return ()


def _no_troubles() -> tuple[str, ...]:
    return ()


def _progress() -> Values:
    return {"ready": True, "stalled": ()}


def _no_show(_show: Show | None) -> None:
    return


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything comes from.

    Attributes:
        identity: device, boot, version, started (seconds since the epoch).
        cameras: by name: state, reason, since, attempts, model.
        stats: counts and histograms by camera since the start; copies.
        models: by slot: name, digest, backend, precision, reason, build, update, waiting,
            waiting_s and busy_s.
        health: ready; stalled: stages that make no progress.
        troubles: what is wrong with settings and updates.
        host: load of the machine.
        broker: connected, reason if it is not, and counters.
        publisher, spool, governor, updates: as telemetry has them.
        events: the newest, oldest first: ts, kind, severity, what.
        event_counts: by kind.
        history: updates that ended, newest first: slot, state, version, reason, changed, figures.
        show: have every analysed frame shown to a function, or to none any more.
    """

    identity: Callable[[], Values]
    cameras: Callable[[], Mapping[str, Values]]
    stats: Callable[[], Mapping[str, CameraStats]]
    models: Callable[[], Mapping[str, Values]]
    health: Callable[[], Values] = _progress
    troubles: Callable[[], Iterable[str]] = _no_troubles
    host: Look = nothing
    broker: Look = nothing
    publisher: Look = nothing
    spool: Look = nothing
    governor: Look = nothing
    updates: Look = nothing
    events: Callable[[], Iterable[Values]] = _no_events
    event_counts: Look = nothing
    history: Callable[[], Iterable[Values]] = _no_events
    show: Callable[[Show | None], None] = _no_show
