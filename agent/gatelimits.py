"""What an engine must keep, by its precision, and what its figures say about that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.vision.parts import SCORES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import GateConfig
    from agent.vision.agreement import BoxFigures
    from engines.compare import TensorFigures

MIN_COSINE, MIN_COSINE_INT8 = 0.999, 0.99
MIN_MATCHED, MIN_MATCHED_INT8 = 0.99, 0.9
MIN_TOP1, MIN_TOP1_INT8 = 0.99, 0.98

MIN_BOXES = 10
"""With fewer objects in all pictures, shares of them say nothing."""

SPARE_BOXES = 2
"""So many objects may be lost, or invented, whatever share of all they are: of two boxes that
suppress each other, rounding decides which one stays."""


@dataclass(frozen=True, slots=True)
class Limits:
    """See `agent.config.GateConfig`, with the defaults of a precision filled in."""

    min_cosine: float
    match_iou: float
    min_matched: float
    max_score_drift: float
    min_top1: float
    max_map_loss: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The highest score that each engine gave to anything."""

    reference: float
    candidate: float


def is_quantised(precision: str) -> bool:
    """Whether a precision is int8, in all layers or in some."""
    return precision in ("int8", "mixed")


def limits(config: GateConfig, precision: str) -> Limits:
    """Limits for a precision.

    Quantised engines have their own, all others are held to those of fp16: FP32 of another library
    rounds differently and is well within them.
    """
    int8 = is_quantised(precision)

    def given(value: float | None, quantised: float, floating: float) -> float:
        return value if value is not None else quantised if int8 else floating

    return Limits(
        min_cosine=given(config.min_cosine, MIN_COSINE_INT8, MIN_COSINE),
        match_iou=config.match_iou,
        min_matched=given(config.min_matched, MIN_MATCHED_INT8, MIN_MATCHED),
        max_score_drift=config.max_score_drift,
        min_top1=given(config.min_top1, MIN_TOP1_INT8, MIN_TOP1),
        max_map_loss=config.max_map_loss,
    )


def tensor_faults(
    tensors: Mapping[str, TensorFigures], limit: Limits, *, judge_scores: bool
) -> Iterator[str]:
    """Sentences about outputs that are too far from the reference's.

    Args:
        tensors: figures by part.
        limit: the limits.
        judge_scores: False where the reference found too little: among scores near 0, which no
            threshold lets through, rounding alone spoils the cosine.
    """
    for name, figures in tensors.items():
        if not figures.finite:
            yield f"{name} has NaN or infinite values where FP32 has none"
        elif figures.cosine < limit.min_cosine and (judge_scores or name != SCORES):
            yield (
                f"cosine of {name} is {figures.cosine:.4f}, at least {limit.min_cosine:g} is "
                f"needed (SNR {figures.snr_db:.1f} dB)"
            )


def box_faults(boxes: BoxFigures, scores: Scores, limit: Limits, *, int8: bool) -> Iterator[str]:
    """Sentences about objects that were lost, invented or scored differently."""
    at = limit.match_iou
    if boxes.reference >= MIN_BOXES:
        if scores.candidate <= 0:
            yield (
                f"every score is 0, where the reference's reach {scores.reference:.2f}: the "
                "model's last layers were quantised; keep them in floating point"
            )
        if _too_many(boxes.matched[at], boxes.reference, limit):
            yield (
                f"{boxes.matched[at]:.1%} of {boxes.reference} objects are kept at IoU {at:g}, "
                f"at least {limit.min_matched:.1%} are needed"
            )
        if boxes.score_drift is not None and boxes.score_drift > limit.max_score_drift:
            yield (
                f"scores change by {boxes.score_drift:.3f} on average, at most "
                f"{limit.max_score_drift:g} is allowed"
            )
    elif int8:
        yield (
            f"the reference finds {boxes.reference} objects in the pictures: int8 cannot be judged "
            f"by fewer than {MIN_BOXES}; give pictures that show what the model is to find"
        )
    if _too_many(boxes.supported[at], boxes.candidate, limit):
        yield (
            f"{1 - boxes.supported[at]:.1%} of {boxes.candidate} objects are none of the "
            f"reference's at IoU {at:g}, at most {1 - limit.min_matched:.1%} is allowed"
        )


def _too_many(share: float, total: int, limit: Limits) -> bool:
    """Whether more objects have no partner than may have none."""
    alone = round((1 - share) * total)
    return share < limit.min_matched and alone > SPARE_BOXES


def top1_faults(top1: float, limit: Limits) -> Iterator[str]:
    """A sentence about a classifier that answers differently."""
    if top1 < limit.min_top1:
        yield (
            f"the best class is the same in {top1:.1%} of the pictures, at least "
            f"{limit.min_top1:.1%} is needed"
        )


def map_faults(reference: float, candidate: float, limit: Limits) -> Iterator[str]:
    """A sentence about lost precision."""
    if reference - candidate > limit.max_map_loss:
        yield (
            f"mAP50-95 falls from {reference:.4f} to {candidate:.4f}, by "
            f"{reference - candidate:.4f}; at most {limit.max_map_loss:g} is allowed"
        )
