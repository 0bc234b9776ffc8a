"""Non-maximum suppression: of boxes that overlap, the one with the highest score stays.

Exact greedy suppression, worked off in blocks: the overlaps of a block of boxes with all that are
left are one vectorised computation, and boxes already suppressed cost nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Overlaps = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.bool_]]
    """Rows and columns to a matrix [rows, columns]: do these two overlap too much?"""

BLOCK = 64
"""Boxes compared with the rest at a time: 64 x 1000 float32 fit a second-level cache."""

EPSILON = 1e-9
"""Keeps a division or logarithm of rotated boxes without area finite."""


def by_score(scores: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """Indices in order of falling score; of equal scores the lower index first."""
    return np.argsort(-scores, kind="stable")


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None,
    threshold: float,
    limit: int,
) -> NDArray[np.intp]:
    """Suppress upright boxes.

    Args:
        boxes: [n, 4], x0 y0 x1 y1, with x0 <= x1 and y0 <= y1.
        scores: [n].
        class_ids: [n]; boxes of different classes leave each other alone. None: they do not.
        threshold: a box goes if its intersection over union with a kept one is more than this.
        limit: most boxes to keep.

    Returns:
        Indices of the kept boxes in order of falling score.
    """
    order = by_score(scores)
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[order].T)
    area = (x1 - x0) * (y1 - y0)
    share = area * np.float32(threshold)
    classes = None if class_ids is None else class_ids[order]

    def overlaps(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.bool_]:
        r = rows[:, None]
        w = np.minimum(x1[r], x1[cols])
        w -= np.maximum(x0[r], x0[cols])
        np.maximum(w, 0, out=w)
        h = np.minimum(y1[r], y1[cols])
        h -= np.maximum(y0[r], y0[cols])
        np.maximum(h, 0, out=h)
        w *= h
        # inter / (a + b - inter) > t, without the division.
        w *= np.float32(1 + threshold)
        found: NDArray[np.bool_] = w > np.add(share[r], share[cols], out=h)
        if classes is not None:
            found &= classes[r] == classes[cols]
        return found

    return order[_greedy(len(order), overlaps, limit)]


def nms_rotated(
    rotated: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32] | None,
    threshold: float,
    limit: int,
) -> NDArray[np.intp]:
    """Suppress rotated boxes by their probabilistic intersection over union.

    A box stands for a Gaussian with the box's centre and spread; the overlap of two is one minus
    their Hellinger distance (Llerena et al., "Gaussian Bounding Boxes and Probabilistic
    Intersection-over-Union for Object Detection", arXiv 2106.06072).

    Args:
        rotated: [n, 5], centre x, centre y, width, height, angle in radians.
        scores: as for `nms`.
        class_ids: as for `nms`.
        threshold: as for `nms`, of the probabilistic IoU.
        limit: as for `nms`.

    Returns:
        As `nms`.
    """
    order = by_score(scores)
    x, y, width, height, angle = np.ascontiguousarray(rotated[order].T.astype(np.float64))
    a, b, c = _covariance(width, height, angle)
    determinant = np.maximum(a * b - c * c, 0)
    classes = None if class_ids is None else class_ids[order]

    def overlaps(rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.bool_]:
        r = rows[:, None]
        sum_a, sum_b, sum_c = a[r] + a[cols], b[r] + b[cols], c[r] + c[cols]
        dx, dy = x[r] - x[cols], y[r] - y[cols]
        joint = np.maximum(sum_a * sum_b - sum_c**2, EPSILON)
        # Bhattacharyya distance: d' S^-1 d / 4 + ln(det S / (4 sqrt(det S1 det S2))) / 2 with
        # S = S1 + S2, from equations 5 to 7.
        distance = (sum_b * dx**2 + sum_a * dy**2 - 2 * sum_c * dx * dy) / (4 * joint)
        both = 4 * np.sqrt(determinant[r] * determinant[cols]) + EPSILON
        distance += np.log(joint / both) / 2
        hellinger = np.sqrt(1 - np.exp(-np.maximum(distance, 0)))
        found: NDArray[np.bool_] = 1 - hellinger > threshold
        if classes is not None:
            found &= classes[r] == classes[cols]
        return found

    return order[_greedy(len(order), overlaps, limit)]


def _covariance(
    width: NDArray[np.float64], height: NDArray[np.float64], angle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Entries xx, yy, xy of the covariance of a uniform distribution over each box."""
    along, across = width**2 / 12, height**2 / 12
    cos, sin = np.cos(angle), np.sin(angle)
    return (
        along * cos**2 + across * sin**2,
        along * sin**2 + across * cos**2,
        (along - across) * cos * sin,
    )


def _greedy(count: int, overlaps: Overlaps, limit: int) -> NDArray[np.intp]:
    """Positions kept of `count` boxes that are in order of falling score."""
    alive = np.ones(count, np.bool_)
    kept: list[NDArray[np.intp]] = []
    room = limit
    for start in range(0, count, BLOCK):
        rows = start + np.flatnonzero(alive[start : start + BLOCK])
        if not len(rows):
            continue
        later = start + BLOCK + np.flatnonzero(alive[start + BLOCK :])
        matrix = overlaps(rows, np.concatenate([rows, later]))
        winners = _resolve(matrix[:, : len(rows)])[:room]
        kept.append(rows[winners])
        room -= len(winners)
        if room == 0:
            break
        alive[later[matrix[winners, len(rows) :].any(axis=0)]] = False
    return np.concatenate(kept) if kept else np.zeros(0, np.intp)


def _resolve(matrix: NDArray[np.bool_]) -> list[int]:
    """Rows that stay, of a square matrix of overlaps in order of falling score."""
    # Python's integers as bit sets: for so few boxes cheaper than one numpy call a row.
    rows = [int.from_bytes(r.tobytes(), "little") for r in np.packbits(matrix, 1, "little")]
    winners = []
    suppressed = 0
    for i, row in enumerate(rows):
        if not suppressed >> i & 1:
            winners.append(i)
            suppressed |= row
    return winners
