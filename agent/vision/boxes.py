"""Arithmetic on upright and rotated boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.preprocess import Placement


def corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn [n, 4] centre x, centre y, width, height into x0 y0 x1 y1."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def clip(points: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Move [..., 2m] coordinates, x and y in turn, to the nearest place in the frame."""
    pairs = points.shape[-1] // 2
    return np.clip(points, np.float32(0), np.array([width, height] * pairs, np.float32))


def has_area(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the x0 y0 x1 y1 boxes [n, 4] are wider and higher than nothing."""
    return np.asarray((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


def upright(rotated: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smallest upright box x0 y0 x1 y1 around each rotated one [n, 5]."""
    cos, sin = np.abs(np.cos(rotated[:, 4])), np.abs(np.sin(rotated[:, 4]))
    half_width = (rotated[:, 2] * cos + rotated[:, 3] * sin) / 2
    half_height = (rotated[:, 2] * sin + rotated[:, 3] * cos) / 2
    half = np.stack([half_width, half_height], axis=1)
    return np.concatenate([rotated[:, :2] - half, rotated[:, :2] + half], axis=1)


def rotated_to_frame(rotated: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Map rotated boxes from input pixels to frame pixels.

    Where the two axes are scaled differently, a rectangle becomes a parallelogram; the result then
    keeps the centre, the side that gives the angle, and the area.

    Args:
        rotated: [n, 5], centre x, centre y, width, height, angle in radians.
        placement: how the frame lies in the input.

    Returns:
        float32 [n, 5]; angles in (-pi, pi].
    """
    x = rotated[:, 2] * np.cos(rotated[:, 4]) / placement.scale_x
    y = rotated[:, 2] * np.sin(rotated[:, 4]) / placement.scale_y
    width = np.hypot(x, y)
    area = rotated[:, 2] * rotated[:, 3] / (placement.scale_x * placement.scale_y)
    columns = [*placement.to_frame(rotated[:, :2]).T, width, area / width, np.arctan2(y, x)]
    return np.stack(columns, axis=1).astype(np.float32)
