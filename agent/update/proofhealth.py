"""Watches a slot for a while, and says how healthy its model was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

from agent.memory import give_back
from agent.pipeline.stats import Histogram
from agent.update.canary import Health

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping

    from agent.pipeline.pipeline import Pipeline
    from agent.pipeline.stats import CameraStats, Window

LATE = ("superseded", "too_old")
ERRORS = ("inference_failed", "invalid_output", "internal_error")
"""Causes of drops, as `agent.pipeline.worker` names them."""

LOOK_S = 0.25
"""How often it is looked whether watching is to end early."""

BYTES_PER_MB = 2**20


class Watch:
    """Watches one slot.

    Args:
        pipeline: that runs it.
        slot: which.
        clock: monotonic seconds, the clock of the pipeline's statistics.
    """

    def __init__(
        self, pipeline: Pipeline, slot: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pipeline = pipeline
        self._slot = slot
        self._clock = clock
        self._live = pipeline.cameras_of(slot)

    def look(
        self,
        seconds: float,
        cancelled: threading.Event,
        ends: Callable[[Health], bool] = lambda _health: False,
    ) -> Window:
        """Watch until the time is over, `cancelled` is set, or `ends` says so.

        Args:
            seconds: how long.
            cancelled: ends it.
            ends: asked at every look, about what was seen so far.
        """
        with self._pipeline.stats.window() as window:
            until = self._clock() + seconds
            while (left_s := until - self._clock()) > 0:
                if cancelled.wait(min(LOOK_S, left_s)) or ends(self.health(window)):
                    break
        return window

    def health(self, window: Window, cameras: Collection[str] | None = None) -> Health:
        """What was seen of some cameras of the slot; None: of all."""
        ended_s = self._clock() if window.ended_s is None else window.ended_s
        seen = {
            name: window.cameras[name] for name in self._live if cameras is None or name in cameras
        }
        total = Histogram()
        for stats in seen.values():
            total.add_all(stats.stages["total"])
        return Health(
            seconds=ended_s - window.began_s,
            results=sum(stats.results for stats in seen.values()),
            late=_dropped(seen, LATE),
            errors=_dropped(seen, ERRORS),
            objects=sum(stats.objects for stats in seen.values()),
            lossless_fps=sum(_fps(s) for name, s in seen.items() if not self._live[name]),
            p50_ms=total.percentile(0.50),
            p95_ms=total.percentile(0.95),
        )

    def both(self, before: Window, during: Window) -> tuple[Health, Health]:
        """Of the cameras that gave frames in both windows: others say nothing of the models."""
        common = _busy(before.cameras) & _busy(during.cameras)
        if not common:
            return self.health(before), self.health(during)
        return self.health(before, common), self.health(during, common)


class Stall:
    """Notices a model that gives nothing while frames wait for it.

    Args:
        waiting: how many frames wait.
        patience_s: so long it may.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        waiting: Callable[[], int],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = waiting
        self._patience_s = patience_s
        self._clock = clock
        self._moved = -1
        self._since = clock()

    def __call__(self, health: Health) -> bool:
        """Whether it hangs, by what was seen so far."""
        moved = health.results + health.errors + health.late
        if moved != self._moved or not self._waiting():
            self._moved, self._since = moved, self._clock()
        return self._clock() - self._since >= self._patience_s


def resident_mb() -> float:
    """Memory of this process that it really uses, MB."""
    give_back()
    return float(psutil.Process().memory_info().rss) / BYTES_PER_MB


def _busy(cameras: Mapping[str, CameraStats]) -> set[str]:
    return {name for name, stats in cameras.items() if stats.results or stats.drops}


def _dropped(cameras: Mapping[str, CameraStats], causes: Collection[str]) -> int:
    return sum(stats.drops[cause] for stats in cameras.values() for cause in causes)


def _fps(stats: CameraStats) -> float:
    span_s = stats.last_s - stats.first_s
    return (stats.results - 1) / span_s if span_s > 0 else 0.0
