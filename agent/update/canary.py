"""Whether a candidate on trial is as healthy as what served before. Pure.

What the network does is never ill health: a camera that gives fewer frames, or none, changes how
many there are to analyse, not which share of them is. Where too few frames came, ratios are not
judged, and the figures say how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.update.ports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.bundle.manifest import CanaryRules

MIN_FRAMES = 10
"""Fewer frames than this say nothing of speed or of what is found."""

STEADY_FRAMES = 200
"""With fewer frames the slowest twentieth is a handful of them, which a busy moment can make: then
the median must have risen as much."""

MIN_ERRORS = 3
"""So many failures end a trial early, if they are too great a share."""

STALL_S = 10.0
"""A frame that waits for so long without a result comes from a model that hangs."""

DIGITS = 3


@dataclass(frozen=True, slots=True)
class Health:
    """What a model did for a while, all cameras of its slot together.

    Attributes:
        seconds: how long it was watched.
        results: frames analysed.
        late: frames of live cameras left out because the model was busy.
        errors: frames that it failed on.
        objects: found in all frames.
        lossless_fps: frames a second of cameras that wait for it, while they gave frames.
        p50_ms, p95_ms: capture to result.
    """

    seconds: float
    results: int
    late: int
    errors: int
    objects: int
    lossless_fps: float
    p50_ms: float
    p95_ms: float

    @property
    def fps(self) -> float:
        """Frames analysed a second."""
        return self.results / self.seconds if self.seconds else 0.0

    @property
    def served(self) -> float:
        """Share of the frames that were to be analysed, 0..1."""
        offered = self.results + self.late + self.errors
        return self.results / offered if offered else 1.0

    @property
    def error_rate(self) -> float:
        """Share of the frames that were tried."""
        tried = self.results + self.errors
        return self.errors / tried if tried else 0.0

    @property
    def objects_per_frame(self) -> float:
        """Mean."""
        return self.objects / self.results if self.results else 0.0

    def figures(self) -> dict[str, object]:
        """JSON values."""
        return {
            "seconds": round(self.seconds, DIGITS),
            "frames": self.results,
            "fps": round(self.fps, DIGITS),
            "late": self.late,
            "errors": self.errors,
            "objects_per_frame": round(self.objects_per_frame, DIGITS),
            "p50_ms": round(self.p50_ms, DIGITS),
            "p95_ms": round(self.p95_ms, DIGITS),
        }


def hopeless(during: Health, rules: CanaryRules) -> bool:
    """Whether a trial need not go on."""
    return during.errors >= MIN_ERRORS and during.error_rate > rules.max_error_rate


def judge_canary(
    before: Health,
    during: Health,
    growth_mb: float,
    rules: CanaryRules,
    *,
    broken: str = "",
    said: str = "",
) -> Finding:
    """Judge a trial.

    Args:
        before: the active model.
        during: the candidate.
        growth_mb: memory of the agent, now less before.
        rules: what makes it go back.
        broken: why it serves no more, if it does not.
        said: the error that it gave last, if it gave any.
    """
    figures: dict[str, object] = {
        "before": before.figures(),
        "during": during.figures(),
        "error_rate": round(during.error_rate, 4),
        "memory_growth_mb": round(growth_mb, 1),
    }
    if broken:
        # What followed it was another model.
        return Finding(False, broken + (f" (it said: {said})" if said else ""), figures)
    reasons = list(_errors(during, rules, said))
    if min(before.results, during.results) >= MIN_FRAMES:
        fps_ratio = _fps_ratio(before, during)
        latency_ratio = _latency_ratio(before, during)
        figures["fps_ratio"] = round(fps_ratio, DIGITS)
        figures["latency_ratio"] = round(latency_ratio, DIGITS)
        figures["detection_drift"] = round(_drift(before, during), DIGITS)
        reasons += _speed(before, during, fps_ratio, latency_ratio, rules)
        reasons += _detections(before, during, rules)
    else:
        figures["note"] = (
            f"{before.results} frames before and {during.results} during it: too few to judge "
            "speed and detections by"
        )
    most_mb = rules.max_memory_growth_mb
    if most_mb is not None and growth_mb > most_mb:
        reasons.append(
            f"the agent takes {growth_mb:.0f} MB more than before; at most {most_mb} MB is allowed"
        )
    return Finding(not reasons, "; ".join(reasons), figures)


def _errors(during: Health, rules: CanaryRules, said: str) -> Iterator[str]:
    if during.error_rate > rules.max_error_rate:
        yield (
            f"it fails on {during.errors} of {during.results + during.errors} frames "
            f"({during.error_rate:.1%}); at most {rules.max_error_rate:.1%} is allowed"
            + (f" (it said: {said})" if said else "")
        )


def _fps_ratio(before: Health, during: Health) -> float:
    served = during.served / before.served if before.served else 1.0
    waited = during.lossless_fps / before.lossless_fps if before.lossless_fps else 1.0
    # A file that has ended meanwhile is not the model's fault.
    return min(served, waited if during.lossless_fps else 1.0)


def _latency_ratio(before: Health, during: Health) -> float:
    if not (before.p50_ms and before.p95_ms):
        return 1.0
    slowest = during.p95_ms / before.p95_ms
    if min(before.results, during.results) >= STEADY_FRAMES:
        return slowest
    return min(slowest, during.p50_ms / before.p50_ms)


def _drift(before: Health, during: Health) -> float:
    """Change of the objects in a frame, as a share of what they were."""
    change = abs(during.objects_per_frame - before.objects_per_frame)
    return change / max(before.objects_per_frame, 1.0 / MIN_FRAMES)


def _speed(
    before: Health, during: Health, fps_ratio: float, latency_ratio: float, rules: CanaryRules
) -> Iterator[str]:
    if fps_ratio < rules.min_fps_ratio:
        yield (
            f"it analyses {fps_ratio:.2f} of the frames that were analysed before "
            f"({during.fps:.1f} a second, {before.fps:.1f} before); at least "
            f"{rules.min_fps_ratio:g} is asked"
        )
    if latency_ratio > rules.max_latency_ratio:
        yield (
            f"results are {latency_ratio:.2f} times as late (p95 {during.p95_ms:.1f} ms, "
            f"{before.p95_ms:.1f} ms before); at most {rules.max_latency_ratio:g} is allowed"
        )


def _detections(before: Health, during: Health, rules: CanaryRules) -> Iterator[str]:
    most, drift = rules.max_detection_drift, _drift(before, during)
    if most is not None and drift > most:
        yield (
            f"it finds {during.objects_per_frame:.2f} objects in a frame, "
            f"{before.objects_per_frame:.2f} were found before, a change of {drift:.2f}; at most "
            f"{most:g} is allowed"
        )
