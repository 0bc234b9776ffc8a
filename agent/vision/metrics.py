"""Mean average precision of detections against ground truth, as COCO defines it.

https://cocodataset.org/#detection-eval: detections are matched to unmatched truths of their class
in order of falling score; precision is interpolated at 101 recall levels; the mean is over classes,
and for `map50_95` over the IoU thresholds 0.50, 0.55, … 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_LEVELS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Boxes of one picture: ground truth, or predictions with scores.

    Attributes:
        boxes: [n, 4], x0 y0 x1 y1 in any one unit.
        class_ids: [n].
        scores: [n]; unused in ground truth.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MeanAveragePrecision:
    """The figures.

    Attributes:
        map50: mean over classes at IoU 0.5.
        map50_95: mean over classes and IoU thresholds.
        ap50: average precision at IoU 0.5 by class id.
        truths: boxes of the ground truth.
    """

    map50: float
    map50_95: float
    ap50: dict[int, float]
    truths: int


def mean_average_precision(
    predictions: Sequence[Labelled], truths: Sequence[Labelled]
) -> MeanAveragePrecision:
    """Compare predictions with ground truth, picture by picture.

    Classes that the ground truth does not hold do not count; with no ground truth at all the mean
    is 0.

    Raises:
        ValueError: the sequences differ in length.
    """
    classes = sorted({int(c) for truth in truths for c in truth.class_ids})
    table = np.array([_class_ap(predictions, truths, c) for c in classes]).reshape(-1, 10)
    return MeanAveragePrecision(
        map50=float(table[:, 0].mean()) if classes else 0.0,
        map50_95=float(table.mean()) if classes else 0.0,
        ap50={c: float(row[0]) for c, row in zip(classes, table, strict=True)},
        truths=sum(len(truth.class_ids) for truth in truths),
    )


def _class_ap(
    predictions: Sequence[Labelled], truths: Sequence[Labelled], class_id: int
) -> NDArray[np.float64]:
    """Average precision of one class at each IoU threshold."""
    scores, hits, total = [], [], 0
    for prediction, truth in zip(predictions, truths, strict=True):
        real = truth.boxes[truth.class_ids == class_id]
        total += len(real)
        chosen = np.flatnonzero(prediction.class_ids == class_id)
        chosen = chosen[np.argsort(-prediction.scores[chosen], kind="stable")]
        scores.append(prediction.scores[chosen])
        hits.append(_match(prediction.boxes[chosen], real))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hit = np.concatenate(hits, axis=1)[:, order]
    true = hit.cumsum(1)
    recall = true / max(total, 1)
    precision = true / np.arange(1, hit.shape[1] + 1)
    # At each recall level counts the best precision at that recall or a higher one.
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros(len(IOU_THRESHOLDS))
    for row in range(len(IOU_THRESHOLDS)):
        at = np.searchsorted(recall[row], RECALL_LEVELS, side="left")
        reached = at < recall.shape[1]
        result[row] = best[row, at[reached]].sum() / len(RECALL_LEVELS)
    return result


def _match(boxes: NDArray[np.float32], real: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which predictions, in order of falling score, hit a truth; [thresholds, predictions]."""
    hit = np.zeros((len(IOU_THRESHOLDS), len(boxes)), bool)
    if not len(real):
        return hit
    overlap = iou(boxes, real)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        free = np.ones(len(real), bool)
        for number, values in enumerate(overlap):
            candidates = np.where(free, values, -1.0)
            best = int(candidates.argmax())
            if candidates[best] >= threshold:
                free[best] = False
                hit[row, number] = True
    return hit


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of boxes [n, 4] and [m, 4]: [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(2).astype(np.float64)
    area_a = (a[:, 2:] - a[:, :2]).prod(1)[:, None]
    area_b = (b[:, 2:] - b[:, :2]).prod(1)[None]
    return np.asarray(inside / np.maximum(area_a + area_b - inside, 1e-9), np.float64)
