"""Reads one picture's candidates out of a detector's output, one function for each layout.

Only what reaches a threshold is touched beyond one pass over the scores: of thousands of
candidates, a few are objects. Every number that is used is checked to be finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.errors import OutputError
from agent.vision.nms import by_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CANDIDATES = 10_000
"""Most candidates of one picture that are looked at, the highest scores; bounds the time of NMS."""

BOX = 4
"""Values of a box, first in every layout."""

ANCHOR_HEAD = 5
"""Box and objectness, before the class scores of the anchor layout."""

END2END_HEAD = 6
"""Box, score and class of the end-to-end layout."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What may be an object, in the order the model gave it.

    Attributes:
        boxes: float32 [n, 4] as in the layout: xyxy or cxcywh.
        scores: float32 [n].
        class_ids: int32 [n].
        extra: float32 [n, e]: mask coefficients, keypoint values, or an angle.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    extra: NDArray[np.float32]

    def take(self, which: NDArray[Any]) -> Candidates:
        """The candidates at these indices, or where this mask is true."""
        return Candidates(
            self.boxes[which], self.scores[which], self.class_ids[which], self.extra[which]
        )


def read_yolo(output: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Candidates:
    """Read [4+nc+e, N]: box, class scores, extra.

    Args:
        output: the array of one picture.
        thresholds: float32 [nc]: least score of each class; infinite where a class is not wanted.

    Raises:
        OutputError: a score, or anything of a candidate, is NaN or infinite.
    """
    end = BOX + len(thresholds)
    scores = output[BOX:end]
    best = scores.max(axis=0)
    require_finite(best)
    chosen = _chosen(best, thresholds)
    class_ids = scores.take(chosen, axis=1).argmax(axis=0)
    boxes = output[:BOX].take(chosen, axis=1).T
    extra = output[end:].take(chosen, axis=1).T
    return _checked(boxes, best[chosen], class_ids, extra, thresholds)


def read_anchor(output: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Candidates:
    """Read [N, 5+nc]: box, objectness, class scores; see `read_yolo`."""
    objectness = output[:, BOX]
    require_finite(objectness)
    # Class scores are at most 1, so objectness bounds the product.
    rows = output[_chosen(objectness, thresholds)]
    require_finite(rows)
    scores = rows[:, ANCHOR_HEAD:] * rows[:, BOX:ANCHOR_HEAD]
    class_ids = scores.argmax(axis=1)
    best = scores.max(axis=1)
    return _checked(rows[:, :BOX], best, class_ids, rows[:, :0], thresholds)


def read_end2end(output: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Candidates:
    """Read [K, 6+e]: box, score, class, extra; see `read_yolo`.

    Raises:
        OutputError: also for a class number that the model has no name for.
    """
    scores = output[:, BOX]
    require_finite(scores)
    rows = output[_chosen(scores, thresholds)]
    require_finite(rows)
    # A quantized graph gives class numbers that are only nearly whole.
    numbers = np.rint(rows[:, BOX + 1])
    wrong = (numbers < 0) | (numbers >= len(thresholds))
    if wrong.any():
        raise OutputError(
            f"the model's output has class {numbers[wrong][0]:.0f}, but it has {len(thresholds)} "
            "class names; give all of them in order"
        )
    class_ids = numbers.astype(np.intp)
    return _checked(rows[:, :BOX], rows[:, BOX], class_ids, rows[:, END2END_HEAD:], thresholds)


def read_detr(output: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Candidates:
    """Read [Q, 4+nc]: normalised box, class scores; see `read_yolo`."""
    best = output[:, BOX:].max(axis=1)
    require_finite(best)
    rows = output[_chosen(best, thresholds)]
    class_ids = rows[:, BOX:].argmax(axis=1)
    return _checked(rows[:, :BOX], rows[:, BOX:].max(axis=1), class_ids, rows[:, :0], thresholds)


def require_finite(values: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity.

    Raises:
        OutputError: there is one.
    """
    if not np.isfinite(values).all():
        raise OutputError(
            "the model's output has NaN or infinite values; a float16 or quantized model may "
            "overflow: try its float32 export"
        )


def _chosen(best: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.intp]:
    chosen = np.flatnonzero(best >= thresholds.min())
    if len(chosen) > MAX_CANDIDATES:
        chosen = np.sort(chosen[by_score(best[chosen])[:MAX_CANDIDATES]])
    return chosen


def _checked(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[Any],
    extra: NDArray[np.float32],
    thresholds: NDArray[np.float32],
) -> Candidates:
    require_finite(boxes)
    require_finite(extra)
    wanted = scores >= thresholds[class_ids]
    return Candidates(
        np.ascontiguousarray(boxes[wanted]),
        scores[wanted],
        class_ids[wanted].astype(np.int32),
        np.ascontiguousarray(extra[wanted]),
    )
