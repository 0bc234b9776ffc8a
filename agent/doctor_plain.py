"""Brings pictures to a model's input the plain way: numpy only, formulas as in the textbooks.

It shares no line with `agent.vision.preprocess`, so that a mistake in one is not in the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.model import Resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.model import ModelInfo

GREY = 114.0
"""What detectors of the YOLO family are trained with around a picture."""

PIXEL_MAX = 255.0


def plain_picture(picture: NDArray[np.uint8], info: ModelInfo) -> NDArray[np.float64]:
    """Fit a picture to the input size.

    Args:
        picture: BGR, uint8, [h, w, 3].
        info: gives size and resize.

    Returns:
        BGR, 0..255, [height, width, 3]; not rounded.
    """
    high, wide = picture.shape[:2]
    pixels = picture.astype(np.float64)
    if info.resize is Resize.STRETCH:
        return _resized(pixels, info.height, info.width, smooth=False)
    if info.resize is Resize.LETTERBOX:
        scale = min(info.height / high, info.width / wide)
        new_high = min(info.height, max(1, round(high * scale)))
        new_wide = min(info.width, max(1, round(wide * scale)))
        canvas = np.full((info.height, info.width, 3), GREY)
        top, left = (info.height - new_high) // 2, (info.width - new_wide) // 2
        fitted = _resized(pixels, new_high, new_wide, smooth=False)
        canvas[top : top + new_high, left : left + new_wide] = fitted
        return canvas
    scale = max(info.height / high, info.width / wide)
    cut_high = min(high, max(1, round(info.height / scale)))
    cut_wide = min(wide, max(1, round(info.width / scale)))
    top, left = (high - cut_high) // 2, (wide - cut_wide) // 2
    cut = pixels[top : top + cut_high, left : left + cut_wide]
    return _resized(cut, info.height, info.width, smooth=cut_wide > info.width)


def plain_input(picture: NDArray[np.uint8], info: ModelInfo) -> NDArray[np.float32]:
    """What the model's own input takes: float32 RGB [1, 3, height, width].

    0..1, less the mean, by the standard deviation; 0..255 where the input is uint8.
    """
    pixels = plain_picture(picture, info)[:, :, ::-1]
    if info.input.dtype != np.uint8:
        pixels = (pixels / PIXEL_MAX - np.array(info.mean)) / np.array(info.std)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def _resized(
    pixels: NDArray[np.float64], high: int, wide: int, *, smooth: bool
) -> NDArray[np.float64]:
    """Rows, then columns: both filters are separable."""
    one = _mean if smooth else _linear
    rows = one(pixels, high)
    return np.asarray(one(rows.transpose(1, 0, 2), wide).transpose(1, 0, 2))


def _linear(lines: NDArray[np.float64], new: int) -> NDArray[np.float64]:
    """Bilinear along the first axis, lines' centres at halves.

    New line i lies at `(i + 0.5) old / new - 0.5`, between two old ones; beyond the edge the edge
    goes on.
    """
    old = len(lines)
    places = (np.arange(new) + 0.5) * old / new - 0.5
    low = np.floor(places).astype(int)
    part = (places - low)[:, None, None]
    below, above = lines[np.clip(low, 0, old - 1)], lines[np.clip(low + 1, 0, old - 1)]
    return np.asarray(below * (1 - part) + above * part)


def _mean(lines: NDArray[np.float64], new: int) -> NDArray[np.float64]:
    """Mean along the first axis over what a new line covers."""
    return np.asarray(np.tensordot(_mean_weights(len(lines), new), lines, axes=(1, 0)))


def _mean_weights(old: int, new: int) -> NDArray[np.float64]:
    """Mean over the area that a new pixel covers: [new, old]."""
    edges = np.arange(new + 1) * old / new
    left = np.maximum(edges[:-1, None], np.arange(old)[None])
    right = np.minimum(edges[1:, None], np.arange(1, old + 1)[None])
    return np.asarray(np.clip(right - left, 0, None) * new / old)
