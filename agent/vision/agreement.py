"""How far one engine's detections are another's, picture by picture, without ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.vision.metrics import iou

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.detection import Detections, Mask

PAIR_IOU = 0.5
"""Least overlap at which two boxes can be of the same object."""

VISIBLE = 0.5
"""Keypoints less visible than this are not compared."""


@dataclass(frozen=True, slots=True)
class BoxFigures:
    """Agreement over all pictures.

    Attributes:
        reference: the reference's objects.
        candidate: the candidate's objects.
        matched: share of the reference's objects that the candidate has, by least overlap.
        supported: share of the candidate's objects that the reference has, by least overlap.
        score_drift: mean of |score difference| of pairs at `PAIR_IOU`, 0..1, or None without any.
        mask_iou: mean overlap of the masks of pairs, or None without masks.
        keypoint_error: mean distance of visible keypoints of pairs, as a fraction of the square
            root of the box's area, or None without keypoints.
    """

    reference: int
    candidate: int
    matched: dict[float, float]
    supported: dict[float, float]
    score_drift: float | None
    mask_iou: float | None
    keypoint_error: float | None


@dataclass(slots=True)
class Agreement:
    """Adds up picture after picture.

    An object counts if its score reaches its class's threshold. Its partner may miss the threshold
    by `slack`: an object whose score moved a little across it is not lost; how far scores move has
    a figure of its own.

    Attributes:
        thresholds: float32 [classes], least score of each class.
        slack: see above, 0..1.
    """

    thresholds: NDArray[np.float32]
    slack: float
    _reference: int = 0
    _candidate: int = 0
    _kept: list[float] = field(default_factory=list)
    _backed: list[float] = field(default_factory=list)
    _drift: list[float] = field(default_factory=list)
    _masks: list[float] = field(default_factory=list)
    _keypoints: list[float] = field(default_factory=list)

    def add(self, reference: Detections, candidate: Detections) -> None:
        """Compare one picture's detections, taken at thresholds that are lower by `slack`."""
        counted = self._counts(reference)
        counting = self._counts(candidate)
        self._reference += int(counted.sum())
        self._candidate += int(counting.sum())
        near = self._counts(reference, self.slack), self._counts(candidate, self.slack)
        for i, j, overlap in pairs(reference, candidate):
            if counted[i] and near[1][j]:
                self._kept.append(overlap)
            if counting[j] and near[0][i]:
                self._backed.append(overlap)
            if not (counted[i] or counting[j]):
                continue
            self._drift.append(abs(float(reference.scores[i]) - float(candidate.scores[j])))
            if reference.masks is not None and candidate.masks is not None:
                self._masks.append(mask_iou(reference.masks[i], candidate.masks[j]))
            if reference.keypoints is not None and candidate.keypoints is not None:
                self._compare_keypoints(reference, i, candidate, j)

    def figures(self, overlaps: tuple[float, ...]) -> BoxFigures:
        """Of everything that was added, at these overlaps."""
        return BoxFigures(
            reference=self._reference,
            candidate=self._candidate,
            matched={at: _share(self._kept, at, self._reference) for at in overlaps},
            supported={at: _share(self._backed, at, self._candidate) for at in overlaps},
            score_drift=float(np.mean(self._drift)) if self._drift else None,
            mask_iou=float(np.mean(self._masks)) if self._masks else None,
            keypoint_error=float(np.mean(self._keypoints)) if self._keypoints else None,
        )

    def _counts(self, found: Detections, slack: float = 0.0) -> NDArray[np.bool_]:
        return np.asarray(found.scores >= self.thresholds[found.class_ids] - slack)

    def _compare_keypoints(self, a: Detections, i: int, b: Detections, j: int) -> None:
        assert a.keypoints is not None
        assert b.keypoints is not None
        seen = a.keypoints[i, :, 2] >= VISIBLE
        if seen.any():
            offset = (a.keypoints[i] - b.keypoints[j])[seen, :2]
            x0, y0, x1, y1 = a.boxes[i]
            size = float(np.sqrt((x1 - x0) * (y1 - y0)))
            self._keypoints.append(float(np.hypot(offset[:, 0], offset[:, 1]).mean()) / size)


def pairs(a: Detections, b: Detections) -> list[tuple[int, int, float]]:
    """Objects of one class that overlap by `PAIR_IOU`, one to one, the best overlaps first.

    Returns:
        Index in `a`, index in `b`, overlap 0..1. Rotated boxes overlap as they are rotated.
    """
    overlap = iou(a.boxes, b.boxes)
    overlap[a.class_ids[:, None] != b.class_ids[None]] = 0
    if a.rotated is not None and b.rotated is not None:
        for i, j in np.argwhere(overlap > 0):
            overlap[i, j] = rotated_iou(a.rotated[i], b.rotated[j])
    rows, columns = np.nonzero(overlap >= PAIR_IOU)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    free_a, free_b = np.ones(len(a), bool), np.ones(len(b), bool)
    found = []
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            found.append((i, j, float(overlap[i, j])))
    return found


def rotated_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Overlap of two rotated boxes (centre x, centre y, width, height, radians)."""
    first, second = _rectangle(a), _rectangle(b)
    _, corners = cv2.rotatedRectangleIntersection(first, second)
    if corners is None:
        return 0.0
    inside = float(cv2.contourArea(cv2.convexHull(corners)))
    both = float(a[2] * a[3] + b[2] * b[3])
    return inside / max(both - inside, 1e-9)


def mask_iou(a: Mask, b: Mask) -> float:
    """Overlap of two masks in one frame; two empty ones are equal."""
    left, top = max(a.x, b.x), max(a.y, b.y)
    right = min(a.x + a.bits.shape[1], b.x + b.bits.shape[1])
    bottom = min(a.y + a.bits.shape[0], b.y + b.bits.shape[0])
    inside = 0
    if right > left and bottom > top:
        part_a = a.bits[top - a.y : bottom - a.y, left - a.x : right - a.x]
        part_b = b.bits[top - b.y : bottom - b.y, left - b.x : right - b.x]
        inside = int(np.count_nonzero(part_a & part_b))
    union = int(np.count_nonzero(a.bits)) + int(np.count_nonzero(b.bits)) - inside
    return inside / union if union else 1.0


def _rectangle(box: NDArray[np.float32]) -> tuple[tuple[float, float], tuple[float, float], float]:
    x, y, width, height, angle = (float(value) for value in box)
    return (x, y), (width, height), float(np.degrees(angle))


def _share(overlaps: list[float], at: float, total: int) -> float:
    return sum(overlap >= at for overlap in overlaps) / total if total else 1.0
