"""Frames a second and latencies of the last minutes, for the plots of the page: bounded."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from agent.progress import Activity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.pipeline.stats import CameraStats

EVERY_S = 2.0
POINTS = 300
"""Ten minutes."""


class History:
    """Looks at the counts every `EVERY_S` and keeps what has happened since the look before.

    Args:
        stats: as `agent.http.ports.Sources.stats`.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        activity: a look.
    """

    def __init__(
        self,
        stats: Callable[[], Mapping[str, CameraStats]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.activity = Activity(clock)
        self._stats = stats
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._before: Mapping[str, CameraStats] = stats()
        self._looked = clock()
        self._number = 0

    def look(self) -> None:
        """Take the next point."""
        now, counts = self._clock(), self._stats()
        seconds = now - self._looked
        if seconds <= 0:
            return
        cameras: dict[str, Any] = {}
        for name, stats in counts.items():
            before = self._before.get(name)
            # A camera that came back counts from 0.
            if before is None or before.results > stats.results:
                continue
            total = stats.stages["total"].since(before.stages["total"])
            point: dict[str, Any] = {"fps": round((stats.results - before.results) / seconds, 2)}
            if total.count:
                point |= {
                    "p50": round(total.percentile(0.5), 2),
                    "p95": round(total.percentile(0.95), 2),
                }
            cameras[name] = point
        with self._lock:
            self._number += 1
            self._points.append(
                {"n": self._number, "ts": round(self._wall(), 2), "cameras": cameras}
            )
        self._before, self._looked = counts, now

    def after(self, number: int) -> list[dict[str, Any]]:
        """The points whose number `n` is greater; oldest first."""
        with self._lock:
            return [point for point in self._points if point["n"] > number]

    def latest(self) -> Mapping[str, Any]:
        """The newest point's cameras; empty before the first."""
        with self._lock:
            cameras: Mapping[str, Any] = self._points[-1]["cameras"] if self._points else {}
            return cameras

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop."""
        while not stop.wait(EVERY_S):
            with self.activity:
                self.look()
