"""Counts and latency histograms of the pipeline: bounded, cheap, readable while running."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.detection import StageTimes

STAGES = ("queue", "pre", "infer", "post", "total")

NS_PER_MS = 1e6

GROWTH = 1.05
"""Ratio of one bucket's bound to the previous: a percentile is at most 5 % too high."""
FIRST_MS = 0.01
"""Upper bound of the first bucket, milliseconds."""
BUCKETS = 360
"""The last bucket's bound is above 400 s; what is slower counts there."""


class Histogram:
    """Counts durations in buckets of exponentially growing width."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.sum_ms = 0.0

    def add(self, ms: float) -> None:
        """Count one duration in milliseconds."""
        bucket = 0
        if ms > FIRST_MS:
            bucket = min(BUCKETS - 1, math.ceil(math.log(ms / FIRST_MS) / math.log(GROWTH)))
        self._counts[bucket] += 1
        self.count += 1
        self.sum_ms += ms

    def add_all(self, other: Histogram) -> None:
        """Count what another one has counted."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.count += other.count
        self.sum_ms += other.sum_ms

    def since(self, before: Histogram) -> Histogram:
        """What was counted since an earlier copy of this one."""
        rest = Histogram()
        rest._counts = [a - b for a, b in zip(self._counts, before._counts, strict=True)]
        rest.count = self.count - before.count
        rest.sum_ms = self.sum_ms - before.sum_ms
        return rest

    def at_most(self, bounds_ms: Iterable[float]) -> list[int]:
        """For each bound, rising, how many were counted in buckets that end at or below it."""
        counts, bucket, seen = [], 0, 0
        for bound in bounds_ms:
            while bucket < BUCKETS and FIRST_MS * GROWTH**bucket <= bound:
                seen += self._counts[bucket]
                bucket += 1
            counts.append(seen)
        return counts

    def percentile(self, share: float) -> float:
        """The duration in ms that `share` (0..1) of those counted do not exceed; 0 if none."""
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                return float(FIRST_MS * GROWTH**bucket)
        return 0.0

    def summary(self) -> dict[str, float]:
        """p50, p95 and p99 in milliseconds."""
        return {
            f"p{round(share * 100)}": round(self.percentile(share), 3)
            for share in (0.50, 0.95, 0.99)
        }


@dataclass(slots=True)
class CameraStats:
    """What happened to one camera's frames.

    Attributes:
        results: frames analysed.
        objects: found in them.
        drops: frames not analysed, by cause.
        stages: a histogram a stage.
        first_s, last_s: when the first and the last of the results came, monotonic seconds.
    """

    results: int = 0
    objects: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    stages: dict[str, Histogram] = field(default_factory=lambda: {s: Histogram() for s in STAGES})
    first_s: float = 0.0
    last_s: float = 0.0

    def copy(self) -> CameraStats:
        """What was counted so far; does not change any more."""
        copied = CameraStats(self.results, self.objects, Counter(self.drops))
        for name, histogram in self.stages.items():
            copied.stages[name].add_all(histogram)
        copied.first_s, copied.last_s = self.first_s, self.last_s
        return copied

    def snapshot(self, seconds: float) -> dict[str, object]:
        """Plain values; `seconds` is the time they were gathered in."""
        return {
            "fps": round(self.results / seconds, 2) if seconds > 0 else 0.0,
            "results": self.results,
            "drops": dict(self.drops),
            "lat_ms": {name: histogram.summary() for name, histogram in self.stages.items()},
        }


@dataclass(slots=True, eq=False)
class Window:
    """What happened within a while.

    Attributes:
        cameras: by name.
        began_s: when it began, monotonic seconds.
        ended_s: when it ended; None while it has not.
    """

    cameras: dict[str, CameraStats]
    began_s: float
    ended_s: float | None = None


class PipelineStats:
    """Statistics of all cameras, in total and since the last look."""

    def __init__(self, cameras: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._cameras = tuple(cameras)
        self._clock = clock
        self._lock = threading.Lock()
        self._started = self._looked = clock()
        self._total = {name: CameraStats() for name in self._cameras}
        self._recent = {name: CameraStats() for name in self._cameras}
        self._windows: list[Window] = []

    def add(self, camera: str) -> None:
        """Count for one more camera, from 0."""
        with self._lock:
            self._cameras = (*(n for n in self._cameras if n != camera), camera)
            for counted in (self._total, self._recent, *(w.cameras for w in self._windows)):
                counted.setdefault(camera, CameraStats())

    def remove(self, camera: str) -> None:
        """Forget a camera; what still comes of its frames is not counted."""
        with self._lock:
            self._cameras = tuple(n for n in self._cameras if n != camera)
            self._total.pop(camera, None)
            self._recent.pop(camera, None)

    def result(self, camera: str, times: StageTimes, objects: int = 0) -> None:
        """Count one analysed frame and the objects found in it."""
        with self._lock:
            now = self._clock()
            for stats in self._of(camera):
                stats.first_s = stats.first_s if stats.results else now
                stats.last_s = now
                stats.results += 1
                stats.objects += objects
                for stage in STAGES:
                    stats.stages[stage].add(getattr(times, f"{stage}_ms"))

    def drop(self, camera: str, cause: str, count: int = 1) -> None:
        """Count frames that were not analysed."""
        if count:
            with self._lock:
                for stats in self._of(camera):
                    stats.drops[cause] += count

    @contextlib.contextmanager
    def window(self) -> Iterator[Window]:
        """Count for a while, beside all else; what was counted stays when the block ends."""
        window = Window({name: CameraStats() for name in self._cameras}, self._clock())
        with self._lock:
            self._windows.append(window)
        try:
            yield window
        finally:
            with self._lock:
                self._windows.remove(window)
                window.ended_s = self._clock()

    def total(self) -> dict[str, dict[str, object]]:
        """Snapshot by camera since the start."""
        with self._lock:
            seconds = self._clock() - self._started
            return {name: stats.snapshot(seconds) for name, stats in self._total.items()}

    def counted(self) -> dict[str, CameraStats]:
        """Copies by camera of what was counted since the start."""
        with self._lock:
            return {name: stats.copy() for name, stats in self._total.items()}

    def recent(self) -> dict[str, dict[str, object]]:
        """Snapshot by camera since the last call, for telemetry."""
        with self._lock:
            now = self._clock()
            seconds, self._looked = now - self._looked, now
            recent, self._recent = self._recent, {n: CameraStats() for n in self._cameras}
        return {name: stats.snapshot(seconds) for name, stats in recent.items()}

    def _of(self, camera: str) -> list[CameraStats]:
        counted = (self._total, self._recent, *(window.cameras for window in self._windows))
        return [cameras[camera] for cameras in counted if camera in cameras]
