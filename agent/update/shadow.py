"""The candidate's part of shadowing, in the trial's process: it answers what the active one did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.errors import OutputError
from agent.update.likeness import Classes, Likeness
from agent.update.trialmodel import TrialModel
from engines.backend import Progress
from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.plans import PlanRequest
    from agent.update.trialframes import LiveFrame

DIGITS = 3


def shadow(
    request: PlanRequest,
    names: Sequence[str],
    frames: Iterable[LiveFrame],
    tell: Callable[[Progress], None],
) -> dict[str, object]:
    """Answer live frames until there are no more.

    Args:
        request: the candidate, built.
        names: class names of the active model, which the frames' detections are numbered by.
        frames: with what the active model found in them.
        tell: takes how many were answered.

    Returns:
        Figures, see `agent.update.verdict.judge_shadow`.

    Raises:
        EngineError: the candidate cannot be loaded.
        AgentError: its settings do not fit it.
    """
    cameras: dict[str, int] = {}
    took_ms: list[float] = []
    failures, failure = 0, ""
    with TrialModel(request, proven=True) as candidate:
        classes = Classes(names, candidate.names)
        likeness = Likeness(classes)
        for frame in frames:
            cameras[frame.camera] = cameras.get(frame.camera, 0) + 1
            try:
                reply = candidate.reply(frame.pixels)
            except (InferenceError, OutputError) as error:
                failures += 1
                failure = failure or str(error)
            else:
                took_ms.append(reply.infer_ms + reply.decode_ms)
                likeness.add(classes.of_first(frame.found), classes.of_second(reply.found))
            tell(Progress("shadowing", sum(cameras.values())))
    return {
        **likeness.figures(),
        "frames": sum(cameras.values()),
        "cameras": cameras,
        "failures": failures,
        "failure": failure,
        "latency_ms": _percentiles(took_ms),
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": round(float(p50), DIGITS), "p95": round(float(p95), DIGITS)}
