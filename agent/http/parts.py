"""The parts of an agent as sources of what is shown."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.errors import StoreError
from agent.http.ports import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agent.capture.camera import Camera
    from agent.config import Config
    from agent.events import Events
    from agent.http.ports import Look, Show
    from agent.modelslot import ModelSlot
    from agent.pipeline.pipeline import Pipeline

HISTORY = 20
"""Updates that are shown."""

REPORTS = 5
"""So many of them, the newest, with what gate, shadow and canary measured: that may be long."""

LOOK_EVERY_S = 2.0
"""The file of updates is read no more often."""


def sources_of(
    *,
    device: str,
    boot: str,
    config: Callable[[], Config],
    feeds: Mapping[str, Camera],
    pipeline: Pipeline,
    slots: Mapping[str, ModelSlot],
    events: Events,
    state: Path | None,
    watched: Callable[[], Mapping[str, Any]] | None = None,
    troubles: Callable[[], Iterable[str]] = tuple,
    **parts: Look,
) -> Sources:
    """Everything there is.

    Args:
        device: device id.
        boot: id of this run of the agent.
        config: the settings as they are now.
        feeds: cameras that run, by name.
        pipeline: of the agent.
        slots: of the agent.
        events: of the agent.
        state: folder of the state of updates; None where there are none.
        watched: how the agent's watch over its stages sees them: ready, status, stalled.
        troubles: as `agent.http.ports.Sources` has them.
        parts: host, broker, publisher, spool, governor, updates, as
            `agent.http.ports.Sources` has them.
    """
    started = time.time()
    log = _UpdateLog(state)

    def identity() -> dict[str, Any]:
        return {"device": device, "boot": boot, "version": __version__, "started": started}

    def cameras() -> dict[str, dict[str, Any]]:
        running = dict(feeds)
        told = {}
        for name, settings in config().cameras.items():
            entry: dict[str, Any] = {"state": "disabled", "reason": "", "model": settings.model}
            if name in running:
                status = running[name].status
                entry |= {
                    "state": status.state,
                    "reason": status.reason,
                    "since": status.since_wall_s,
                    "attempts": status.attempts,
                }
            told[name] = entry
        return told

    def models() -> dict[str, dict[str, Any]]:
        records = log.records()
        return {
            slot: _model(pipeline, slot, held) | records.get(slot, {})
            for slot, held in slots.items()
        }

    def health() -> Mapping[str, Any]:
        return {"ready": True, "stalled": ()} if watched is None else watched()

    def show(watcher: Show | None) -> None:
        for runner in list(pipeline.runners.values()):
            runner.tap.beside = watcher

    def recent() -> list[dict[str, Any]]:
        return [
            {"ts": e.ts, "kind": e.kind, "severity": e.severity, "what": e.what}
            for e in events.recent()
        ]

    return Sources(
        identity=identity,
        cameras=cameras,
        stats=pipeline.stats.counted,
        models=models,
        health=health,
        troubles=troubles,
        events=recent,
        event_counts=events.counters,
        history=log.history,
        show=show,
        **parts,
    )


def _model(pipeline: Pipeline, slot: str, held: ModelSlot) -> dict[str, Any]:
    runner = pipeline.runners.get(slot)
    entry: dict[str, Any] = {}
    if runner is not None:
        entry |= {"reason": runner.reason or "", "waiting": pipeline.waiting(slot)}
        since = pipeline.waiting_since(slot)
        waiting_s = None if since is None else max(0.0, time.monotonic() - since)
        entry |= {"waiting_s": waiting_s, "busy_s": runner.busy_s}
        if runner.model is not None:
            ref = asdict(runner.model.ref)
            ref.pop("slot")
            entry |= ref | {"names": list(ref["names"])}
    if held.state is not None:
        entry["build"] = held.state.as_dict()
    return entry


class _UpdateLog:
    """Where updates stand and how they ended, read from their file now and then."""

    def __init__(self, state: Path | None) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._looked_s: float | None = None
        self._history: list[dict[str, Any]] = []
        self._records: dict[str, dict[str, Any]] = {}

    def history(self) -> list[dict[str, Any]]:
        with self._lock:
            self._look()
            return self._history

    def records(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            self._look()
            return self._records

    def _look(self) -> None:
        now = time.monotonic()
        if self._state is None or (
            self._looked_s is not None and now - self._looked_s < LOOK_EVERY_S
        ):
            return
        self._looked_s = now
        # Only agents that receive updates pay for what this imports.
        from agent.update.database import ReadOnly  # noqa: PLC0415
        from agent.update.reader import Reader  # noqa: PLC0415

        with contextlib.suppress(StoreError), contextlib.closing(ReadOnly(self._state)) as rows:
            reader = Reader(rows)
            self._history = [
                {
                    "slot": past.slot,
                    "state": past.state.value,
                    "campaign": past.campaign,
                    "family": past.family,
                    "version": past.version,
                    "reason": past.reason,
                    "changed": past.changed,
                    "figures": json.loads(past.figures) if place < REPORTS else {},
                }
                for place, past in enumerate(reader.history(HISTORY))
            ]
            self._records = {
                record.slot: {
                    "update": {
                        "state": record.state.value,
                        "version": record.version,
                        "reason": record.reason,
                    }
                }
                for record in reader.records()
            }
