"""Times a candidate against the active model, in turn, so that load and priority cancel out."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from engines.race import MIN_MS, ROUNDS, Track, timing

if TYPE_CHECKING:
    from agent.update.trialmodel import TrialModel

DIGITS = 3


def times(
    candidate: TrialModel,
    active: TrialModel | None,
    decode_ms: tuple[list[float], list[float]],
) -> dict[str, object]:
    """Time of one picture: inference in laps, and what decoding was seen to take.

    Args:
        candidate: loaded.
        active: loaded, if it can be.
        decode_ms: of both, of every picture that they were shown.

    Returns:
        `latency_ms` and `active_latency_ms` with p50 and p95, and `latency_ratio`, how many times
        as long the candidate takes: the median of the rounds.

    Raises:
        InferenceError: one of them fails.
    """
    models = [candidate] if active is None else [candidate, active]
    samples: list[list[float]] = [[] for _ in models]
    ratios: list[float] = []
    decoding = [_percentiles(values) for values in decode_ms]
    with ExitStack() as stack:
        tracks = [stack.enter_context(Track(m.model.engine, m.batch)) for m in models]
        for number in range(ROUNDS):
            medians = [0.0] * len(models)
            # In turn also within a round: the machine's clock falls while it works.
            for which in sorted(range(len(models)), reverse=bool(number % 2)):
                tracks[which].settle()
                lap = [ms / models[which].batch for ms in tracks[which].lap()]
                samples[which] += lap
                medians[which] = float(np.median(lap)) + decoding[which][0]
            if active is not None:
                ratios.append(medians[0] / max(medians[1], MIN_MS))
    told = [
        {"p50": round(t.p50_ms + p50, DIGITS), "p95": round(t.p95_ms + p95, DIGITS)}
        for t, (p50, p95) in zip(map(timing, samples), decoding, strict=False)
    ]
    return {
        "latency_ms": told[0],
        "active_latency_ms": told[1] if active is not None else None,
        "latency_ratio": round(float(np.median(ratios)), DIGITS) if ratios else None,
    }


def _percentiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    p50, p95 = np.percentile(values, (50, 95))
    return float(p50), float(p95)
