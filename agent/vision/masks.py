"""Instance masks from mask coefficients and prototypes.

An object's mask is the sum of the prototypes weighted by its coefficients, positive inside (the
sigmoid's 0.5). It is computed, and enlarged to frame pixels, inside the object's box only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.detection import Mask
from agent.vision.candidates import require_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.vision.preprocess import Placement


def cut_masks(
    coefficients: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    boxes: NDArray[np.float32],
    placement: Placement,
    input_size: tuple[int, int],
) -> tuple[Mask, ...]:
    """Masks of all objects.

    Args:
        coefficients: [n, m].
        prototypes: [m, h, w], covering the whole input.
        boxes: [n, 4], x0 y0 x1 y1 in frame pixels, inside the frame and not empty.
        placement: how the frame lies in the input.
        input_size: (width, height) of the input in pixels.

    Returns:
        One mask an object; it covers every pixel that the box touches.

    Raises:
        OutputError: a prototype value that is used is NaN or infinite.
    """
    _, height, width = prototypes.shape
    per_x, per_y = width / input_size[0], height / input_size[1]
    masks = []
    for row, (x0, y0, x1, y1) in zip(coefficients, boxes.tolist(), strict=True):
        left, right = int(np.floor(x0)), int(np.ceil(x1))
        top, bottom = int(np.floor(y0)), int(np.ceil(y1))
        xs = (np.arange(left, right) + 0.5) * placement.scale_x + placement.pad_x
        ys = (np.arange(top, bottom) + 0.5) * placement.scale_y + placement.pad_y
        x_low, x_high, x_part = _neighbours(xs * per_x - 0.5, width)
        y_low, y_high, y_part = _neighbours(ys * per_y - 0.5, height)
        part = prototypes[:, y_low[0] : y_high[-1] + 1, x_low[0] : x_high[-1] + 1]
        small = np.tensordot(row, part, axes=1)
        require_finite(small)
        tall = _between(small, y_low - y_low[0], y_high - y_low[0], y_part)
        # Transposed, so that both directions take whole rows, which are contiguous.
        flat = np.ascontiguousarray(tall.T)
        full = _between(flat, x_low - x_low[0], x_high - x_low[0], x_part)
        masks.append(Mask(np.ascontiguousarray(full.T > 0), left, top))
    return tuple(masks)


def _neighbours(
    places: NDArray[np.float64], size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """The samples below and above each place, and how far it lies between them, 0..1."""
    inside = np.clip(places, 0, size - 1)
    low = np.floor(inside).astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    return low, high, (inside - low).astype(np.float32)


def _between(
    rows: NDArray[np.float32],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    part: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Linear interpolation along the first axis."""
    below = rows[low]
    above = rows[high]
    above -= below
    above *= part[:, None]
    above += below
    return above
