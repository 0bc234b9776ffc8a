"""The gate's measurements, in the trial's process: the candidate beside the active model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agent.calibration import probe_pictures
from agent.errors import AgentError, OutputError
from agent.groundtruth import read_truths
from agent.memory import give_back
from agent.picturesource import open_source
from agent.plans import PlanRequest
from agent.update.likeness import Classes, Likeness
from agent.update.trialmodel import TrialModel
from agent.update.trialscore import Scores
from agent.update.trialtime import times
from engines.backend import Progress
from engines.errors import CalibrationError, EngineError, InferenceError
from engines.model import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.update.trialframes import LiveFrame
    from agent.update.trialmodel import Reply

MAX_GOLDEN = 4096
"""As many files as a manifest can name."""

BYTES_PER_MB = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class GateRequest:
    """What is to be measured.

    Attributes:
        candidate: built.
        active: what serves.
        golden: folder of the golden set, or None.
        truth: what is in it, or None.
        metric: of the bundle.
    """

    candidate: PlanRequest
    active: PlanRequest
    golden: Path | None
    truth: Path | None
    metric: str

    def to_json(self) -> dict[str, object]:
        """For the trial's process; `from_json` reads it."""
        return {
            "candidate": self.candidate.to_json(),
            "active": self.active.to_json(),
            "golden": None if self.golden is None else str(self.golden),
            "truth": None if self.truth is None else str(self.truth),
            "metric": self.metric,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GateRequest:
        """The inverse of `to_json`."""
        return cls(
            PlanRequest.from_json(value["candidate"]),
            PlanRequest.from_json(value["active"]),
            None if value["golden"] is None else Path(value["golden"]),
            None if value["truth"] is None else Path(value["truth"]),
            str(value["metric"]),
        )


def measure(
    request: GateRequest, live: Sequence[LiveFrame], tell: Callable[[Progress], None]
) -> dict[str, object]:
    """Run both models on the golden set and on live frames, and time them.

    Returns:
        Figures, see `agent.update.verdict.judge_gate`.

    Raises:
        EngineError: the candidate cannot be loaded or run, or its golden set is unusable.
        AgentError: its settings do not fit it.
    """
    with ExitStack() as stack:
        give_back()
        before = _resident()
        tell(Progress("loading the candidate"))
        candidate = stack.enter_context(TrialModel(request.candidate, proven=True))
        for pixels in probe_pictures(candidate.model.info):
            candidate.reply(pixels)
        give_back()
        memory_mb = round((_resident() - before) / BYTES_PER_MB, 1)
        active, why_not = _active(request.active, stack)
        trial = _Trial(candidate, active)
        golden = _golden(request, trial, tell)
        shown = _live(trial, live)
        tell(Progress("timing"))
        return {
            "metric": request.metric,
            **golden,
            "live": shown,
            "failures": trial.failures,
            "failure": trial.failure,
            "active_error": why_not or trial.active_failure,
            "memory_mb": memory_mb,
            **times(candidate, trial.active, trial.decode_ms),
        }


class _Trial:
    """Both models, and what went wrong with either."""

    def __init__(self, candidate: TrialModel, active: TrialModel | None) -> None:
        self.candidate = candidate
        self.active = active
        self.classes = Classes(candidate.names, () if active is None else active.names)
        self.failures = 0
        self.failure = ""
        self.active_failure = ""
        self.decode_ms: tuple[list[float], list[float]] = ([], [])

    def replies(
        self, pixels: NDArray[np.uint8], *, every: bool
    ) -> tuple[Reply | None, Reply | None]:
        """What the candidate and the active model say to a picture; None if one fails."""
        own = other = None
        try:
            own = self.candidate.reply(pixels, every=every)
            self.decode_ms[0].append(own.decode_ms)
        except (InferenceError, OutputError) as error:
            self.failures += 1
            self.failure = self.failure or str(error)
        if self.active is not None:
            try:
                other = self.active.reply(pixels, every=every)
                self.decode_ms[1].append(other.decode_ms)
            except (InferenceError, OutputError) as error:
                self.active_failure = str(error)
        return own, other


def _active(request: PlanRequest, stack: ExitStack) -> tuple[TrialModel | None, str]:
    """What serves, or why it cannot be compared with."""
    try:
        return stack.enter_context(TrialModel(request, proven=False)), ""
    except (EngineError, AgentError) as error:
        return None, str(error)


def _golden(
    request: GateRequest, trial: _Trial, tell: Callable[[Progress], None]
) -> Mapping[str, object]:
    if request.golden is None:
        return Scores(request.metric, trial.classes, None, None).figures()
    source = open_source(request.golden)
    count = min(source.count, MAX_GOLDEN)
    truth = None
    # Ground truth is of upright boxes.
    if request.truth is not None and trial.candidate.model.info.task is not Task.OBB:
        keys = [source.key(number) for number in range(count)]
        truth = read_truths(request.truth, keys, trial.classes.names)
    scores = Scores(request.metric, trial.classes, truth, trial.candidate.wanted)
    for number, pixels in enumerate(_readable(source.read(range(count)), source.key)):
        own, other = trial.replies(pixels, every=scores.every)
        if own is not None:
            scores.add(own, other)
        tell(Progress("judging", number + 1, count))
    if trial.failures:
        # What is left of the pictures does not belong to the truth any more.
        return Scores(request.metric, trial.classes, None, None).figures()
    return scores.figures()


def _readable(
    pictures: Iterator[NDArray[np.uint8] | str], key: Callable[[int], str]
) -> Iterator[NDArray[np.uint8]]:
    for number, picture in enumerate(pictures):
        if isinstance(picture, str):
            raise CalibrationError(f"golden picture {key(number)} cannot be used: {picture}")
        yield picture


def _live(trial: _Trial, frames: Sequence[LiveFrame]) -> dict[str, object]:
    likeness = Likeness(trial.classes)
    for frame in frames:
        own, other = trial.replies(frame.pixels, every=False)
        if own is not None and other is not None:
            likeness.add(trial.classes.of_second(other.found), trial.classes.of_first(own.found))
    return {**likeness.figures(), "frames": len(frames)}


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
