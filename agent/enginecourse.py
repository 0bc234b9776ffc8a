"""Runs engines in turn: every stage of a picture's way, and pictures a second.

All engines of a comparison are loaded at once and take turns in short laps, so that a machine whose
speed drifts favours none; ratios are medians over the rounds. Everything is measured warm.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from agent.enginepictures import fill
from agent.errors import OutputError
from agent.vision.preprocess import Preprocessor
from engines.errors import EngineError
from engines.race import Timing, timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.enginecandidates import Candidate
    from agent.vision.decode import Decoder
    from engines.base import Context, Engine
    from engines.model import ModelInfo

Arrangement = Literal["latency", "throughput"]

STAGES = ("preprocess", "input copy", "infer", "output copy", "decode")
"""In the order of a picture's way. The copies are told by engines that work on another device, and
are then not part of "infer"."""

ROUNDS = 11
"""Laps of each engine; the median of an odd number is one of them."""

WARM_UP_RUNS = 3
"""Whole ways that are not timed: buffers, clocks and, on a GPU, graphs settle."""

MS_PER_S = 1e3

FAILURES = (EngineError, OutputError)
"""What an engine may fail with; the second is an output that cannot be decoded, NaN perhaps."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all engines of one comparison.

    Attributes:
        arrangement: one inference over all cores, or one a core.
        batch: pictures of one inference.
        width: of the model's input, pixels.
        height: likewise.
    """

    arrangement: Arrangement
    batch: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.width}x{self.height}, batch {self.batch}, {self.arrangement}"


@dataclass(frozen=True, slots=True)
class Row:
    """One engine in one setting.

    Attributes:
        candidate: what was asked for.
        setting: under which circumstances.
        precision: what was proven to run; empty if it does not run.
        route: how it was built.
        lanes: inferences at a time.
        stages: how long each stage takes for one batch, by its name.
        total: the whole way of one batch, from the picture to detections.
        per_s: pictures a second of the bare engine with every lane busy.
        ratio: to the reference's `per_s`, the median of the rounds' ratios; None without it.
        reason: why there are no figures; empty if there are.
    """

    candidate: Candidate
    setting: Setting
    precision: str = ""
    route: str = ""
    lanes: int = 0
    stages: Mapping[str, Timing] = field(default_factory=dict)
    total: Timing | None = None
    per_s: float = 0.0
    ratio: float | None = None
    reason: str = ""


@runtime_checkable
class TimedContext(Protocol):
    """A context of another device, which times its own stages."""

    def infer_timed(self) -> tuple[float, float, float]:
        """Run once; milliseconds of copying in, computing, copying out."""


class Course:
    """An engine with a context for every lane, to be run in laps.

    Args:
        engine: not closed here.
        info: what the model is.
        decoder: turns outputs into detections.
        pictures: BGR, uint8, [h, w, 3]; used in turn.
        batch: pictures of one inference.

    Attributes:
        stages: milliseconds of every stage so far, by its name.
        totals: milliseconds of whole ways so far.
        rates: pictures a second in each lap of the bare engine.

    Raises:
        InferenceError: the engine cannot run this batch.
        OutputError: what it gives cannot be decoded.
    """

    def __init__(
        self,
        engine: Engine,
        info: ModelInfo,
        decoder: Decoder,
        pictures: Sequence[NDArray[np.uint8]],
        batch: int,
    ) -> None:
        self._preprocessor = Preprocessor(info.resize, info.width, info.height)
        self._decoder = decoder
        self._pictures = pictures
        self._batch = batch
        self._contexts: list[Context] = []
        try:
            for _ in range(engine.lanes):
                self._contexts.append(engine.create_context(batch))
            for context in self._contexts:
                for _ in range(WARM_UP_RUNS):
                    self._way(context)
        except FAILURES:
            self.close()
            raise
        self.stages: defaultdict[str, list[float]] = defaultdict(list)
        self.totals: list[float] = []
        self.rates: list[float] = []

    def lap(self, seconds: float) -> None:
        """Half the time whole ways, half the time bare inferences, on every lane.

        Raises:
            InferenceError: the engine fails.
            OutputError: what it gives cannot be decoded.
        """
        self._on_every_lane(seconds / 2, self._timed_way)
        began = time.perf_counter()
        count = self._on_every_lane(seconds / 2, lambda context: context.infer())
        self.rates.append(count * self._batch / (time.perf_counter() - began))

    def close(self) -> None:
        """Give the contexts back."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()

    def _on_every_lane(self, seconds: float, do: Callable[[Context], object]) -> int:
        deadline = time.perf_counter() + seconds
        counts: list[int] = []
        failures: list[Exception] = []

        def lane(context: Context) -> None:
            count = 0
            try:
                while not count or time.perf_counter() < deadline:
                    do(context)
                    count += 1
            except Exception as error:  # noqa: BLE001 - carried to whoever waits
                failures.append(error)
            counts.append(count)

        if len(self._contexts) == 1:
            lane(self._contexts[0])
        else:
            threads = [threading.Thread(target=lane, args=(c,)) for c in self._contexts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        return sum(counts)

    def _timed_way(self, context: Context) -> None:
        for stage, ms in self._way(context).items():
            (self.totals if stage == "total" else self.stages[stage]).append(ms)

    def _way(self, context: Context) -> dict[str, float]:
        """Take one batch from pictures to detections; milliseconds by stage, and in all."""
        marks = [time.perf_counter()]
        placements = [
            fill(context, i, self._pictures[i % len(self._pictures)], self._preprocessor)
            for i in range(self._batch)
        ]
        marks.append(time.perf_counter())
        outputs = context.infer()
        marks.append(time.perf_counter())
        for index, placement in enumerate(placements):
            self._decoder(outputs, index, placement)
        marks.append(time.perf_counter())
        preprocess, infer, decode = (float(ms) for ms in np.diff(marks) * MS_PER_S)
        times = {"preprocess": preprocess, "infer": infer, "decode": decode}
        if isinstance(context, TimedContext):
            # A second inference: events between the stages would slow the first one down.
            stages = ("input copy", "infer", "output copy")
            times.update(zip(stages, context.infer_timed(), strict=True))
        return {**times, "total": preprocess + infer + decode}


def compare(
    engines: Mapping[Candidate, Engine],
    info: ModelInfo,
    decoder: Decoder,
    pictures: Sequence[NDArray[np.uint8]],
    setting: Setting,
    seconds: float,
) -> list[Row]:
    """Run engines in turn.

    Args:
        engines: by what they are; none is closed here.
        info: what the model is.
        decoder: turns outputs into detections.
        pictures: BGR, uint8, [h, w, 3].
        setting: what is the same for all.
        seconds: for each engine.

    Returns:
        A row an engine, in their order; one that fails has a reason instead of figures.
    """
    courses: dict[Candidate, Course] = {}
    reasons: dict[Candidate, str] = {}
    try:
        for candidate, engine in engines.items():
            try:
                courses[candidate] = Course(engine, info, decoder, pictures, setting.batch)
            except FAILURES as error:
                reasons[candidate] = str(error)
        for number in range(ROUNDS):
            order = list(courses)
            start = number % max(1, len(order))
            # Who runs first, and after whom, changes from round to round.
            for candidate in (*order[start:], *order[:start]):
                try:
                    courses[candidate].lap(seconds / ROUNDS)
                except FAILURES as error:
                    reasons[candidate] = str(error)
                    courses.pop(candidate).close()
        reference = next((c for one, c in courses.items() if one.reference), None)
        return [
            Row(candidate, setting, reason=reasons[candidate])
            if candidate not in courses
            else _row(candidate, setting, engine, courses[candidate], reference)
            for candidate, engine in engines.items()
        ]
    finally:
        for course in courses.values():
            course.close()


def _row(
    candidate: Candidate,
    setting: Setting,
    engine: Engine,
    course: Course,
    reference: Course | None,
) -> Row:
    ratio = None
    if reference is not None:
        ratios = [mine / max(theirs, 1e-9) for mine, theirs in zip(course.rates, reference.rates)]  # noqa: B905 - one may have ended early
        ratio = statistics.median(ratios)
    return Row(
        candidate,
        setting,
        precision=engine.precision,
        lanes=engine.lanes,
        stages={stage: timing(course.stages[stage]) for stage in STAGES if course.stages[stage]},
        total=timing(course.totals),
        per_s=statistics.median(course.rates),
        ratio=ratio,
    )
