"""Times engines against each other, in turn, so that a machine whose speed drifts favours none."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import InferenceError

if TYPE_CHECKING:
    from types import TracebackType

    from engines.base import Context, Engine

WARM_UP_RUNS = 5
"""Runs that are not timed: buffers, clocks and, on a GPU, graphs settle."""

ROUNDS = 15
"""Laps of each engine; the median of an odd number is one of them."""

LAP_S = 0.06
"""About how long one lap takes: long against the clock, short against the machine's drift."""

MAX_LAP_RUNS = 64

SETTLE_S = 0.1
"""How long an engine runs before its lap is timed: a library's threads go on spinning for a while
after their last run, and take the cores of whoever runs next. Without this, an engine that takes
53 ms alone took 93 ms, and int8 looked 1.7 times as fast as FP32 where it is 2.25 times."""

MIN_MS = 1e-3
"""Shorter times are beyond the clock."""

MS_PER_S = 1e3


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one inference takes, milliseconds; with several lanes, a lane's share of it."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class RaceResult:
    """Two engines timed in turn.

    Attributes:
        first: of the first engine.
        second: of the second engine.
        ratio: how many times as fast the second is: the median of the rounds' ratios.
    """

    first: Timing
    second: Timing
    ratio: float


class Track:
    """An engine with every lane busy, on pictures of noise.

    Each lane has a thread of its own, in which its context is made, used and closed.

    Args:
        engine: not closed here.
        batch: images of one inference.

    Raises:
        InferenceError: the engine cannot run this batch.
    """

    def __init__(self, engine: Engine, batch: int) -> None:
        self._lanes = [ThreadPoolExecutor(1) for _ in range(engine.lanes)]
        self._contexts: list[Context] = []
        self._runs = WARM_UP_RUNS
        try:
            for lane in self._lanes:
                self._contexts.append(lane.submit(_prepare, engine, batch).result())
            self.lap()
            one_ms = float(np.median(self.lap()))
        except InferenceError:
            self.close()
            raise
        self._settle_runs = _runs(SETTLE_S, one_ms)
        self._runs = _runs(LAP_S, one_ms)

    def __enter__(self) -> Track:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def lap(self) -> list[float]:
        """Run every lane for about a lap's time; milliseconds of each inference, per lane.

        Raises:
            InferenceError: the engine failed.
        """
        return self._all(self._runs)

    def settle(self) -> None:
        """Run every lane until what ran before has let go of the cores; nothing is timed.

        Raises:
            InferenceError: the engine failed.
        """
        self._all(self._settle_runs)

    def close(self) -> None:
        """Give the contexts back."""
        for lane, context in zip(self._lanes, self._contexts, strict=False):
            lane.submit(context.close).result()
        self._contexts.clear()
        for lane in self._lanes:
            lane.shutdown()

    def _all(self, count: int) -> list[float]:
        runs = [
            lane.submit(_run, context, count)
            for lane, context in zip(self._lanes, self._contexts, strict=True)
        ]
        return [ms / len(runs) for run in runs for ms in run.result()]


def _runs(seconds: float, one_ms: float) -> int:
    """How many runs take about so long."""
    return int(np.clip(np.ceil(seconds * MS_PER_S / max(one_ms, MIN_MS)), 1, MAX_LAP_RUNS))


def _prepare(engine: Engine, batch: int) -> Context:
    context = engine.create_context(batch)
    for array in context.inputs.values():
        array[...] = np.random.default_rng(0).integers(0, 255, array.shape).astype(array.dtype)
    return context


def _run(context: Context, runs: int) -> list[float]:
    samples = []
    for _ in range(runs):
        began = time.perf_counter()
        context.infer()
        samples.append((time.perf_counter() - began) * MS_PER_S)
    return samples


def race(first: Engine, second: Engine, batch: int) -> RaceResult:
    """Time two engines in turn.

    Args:
        first: the one to beat.
        second: the one that `ratio` speaks of.
        batch: images of one inference.

    Raises:
        InferenceError: one of them fails.
    """
    ratios: list[float] = []
    samples: tuple[list[float], list[float]] = ([], [])
    with Track(first, batch) as a, Track(second, batch) as b:
        for number in range(ROUNDS):
            # In turn also within a round: the machine's clock falls while it works.
            pair = (a, b) if number % 2 else (b, a)
            laps = {}
            for track in pair:
                track.settle()
                laps[track] = track.lap()
            ratios.append(float(np.median(laps[a]) / max(np.median(laps[b]), MIN_MS)))
            samples[0].extend(laps[a])
            samples[1].extend(laps[b])
    return RaceResult(timing(samples[0]), timing(samples[1]), float(np.median(ratios)))


def solo(engine: Engine, batch: int) -> Timing:
    """Time one engine.

    Raises:
        InferenceError: it fails.
    """
    with Track(engine, batch) as track:
        return timing([ms for _ in range(ROUNDS) for ms in track.lap()])


def timing(samples_ms: list[float]) -> Timing:
    """Percentiles of samples."""
    p50, p95, p99 = (float(value) for value in np.percentile(samples_ms, (50, 95, 99)))
    return Timing(p50, p95, p99)
