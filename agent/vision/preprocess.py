"""Brings a frame to a model's input size, and remembers how, so that boxes can be brought back.

One pass over the pixels, into a buffer that exists already; scaling to float, channel order and
layout are part of the model's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from engines.model import Resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

BORDER = 114
"""Grey level around a letterboxed frame; detectors of the YOLO family are trained with it."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in a model's input: `input = frame * scale + pad`, in pixels.

    Coordinates are continuous: 0 is the outer edge of the first pixel, 0.5 its centre.

    Attributes:
        scale_x: input pixels per frame pixel, horizontally.
        scale_y: input pixels per frame pixel, vertically.
        pad_x: input coordinate of the frame's left edge; negative where the frame is cropped.
        pad_y: input coordinate of the frame's upper edge.
        width: frame width in pixels.
        height: frame height in pixels.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    width: int
    height: int

    def to_frame(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Map input pixels to frame pixels.

        Args:
            points: shape [..., 2m]: x and y in turn, so boxes [n, 4] are mapped too.

        Returns:
            float32, same shape, not clipped to the frame.
        """
        pairs = points.shape[-1] // 2
        pad = np.array([self.pad_x, self.pad_y] * pairs, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * pairs, np.float32)
        return np.asarray((points - pad) / scale, np.float32)

    def to_input(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Map frame pixels to input pixels: the inverse of `to_frame`."""
        pairs = points.shape[-1] // 2
        pad = np.array([self.pad_x, self.pad_y] * pairs, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * pairs, np.float32)
        return np.asarray(points * scale + pad, np.float32)


@dataclass(frozen=True, slots=True)
class Window:
    """Which pixels of the frame go to which pixels of the input: (left, top, right, bottom).

    Attributes:
        source: part of the frame.
        target: part of the input; what lies outside is border.
    """

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]


def place(
    width: int, height: int, input_width: int, input_height: int, resize: Resize
) -> Placement:
    """Where a frame of `width` x `height` pixels lies in an input of the given size."""
    return _place(_window(width, height, input_width, input_height, resize), width, height)


def _window(width: int, height: int, in_w: int, in_h: int, resize: Resize) -> Window:
    whole = (0, 0, width, height)
    if resize is Resize.STRETCH:
        return Window(whole, (0, 0, in_w, in_h))
    if resize is Resize.LETTERBOX:
        ratio = min(in_w / width, in_h / height)
        w = min(in_w, max(1, round(width * ratio)))
        h = min(in_h, max(1, round(height * ratio)))
        left, top = (in_w - w) // 2, (in_h - h) // 2
        return Window(whole, (left, top, left + w, top + h))
    # Cropping before resizing gives the same picture as the other order, and touches fewer pixels.
    ratio = max(in_w / width, in_h / height)
    w = min(width, max(1, round(in_w / ratio)))
    h = min(height, max(1, round(in_h / ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return Window((left, top, left + w, top + h), (0, 0, in_w, in_h))


def _place(window: Window, width: int, height: int) -> Placement:
    left, top, right, bottom = window.source
    to_left, to_top, to_right, to_bottom = window.target
    scale_x = (to_right - to_left) / (right - left)
    scale_y = (to_bottom - to_top) / (bottom - top)
    return Placement(
        scale_x, scale_y, to_left - left * scale_x, to_top - top * scale_y, width, height
    )


class Preprocessor:
    """Writes frames into model inputs. Keeps no state between frames but one size's arithmetic.

    Args:
        resize: how the frame is fitted.
        width: input width in pixels.
        height: input height in pixels.
    """

    def __init__(self, resize: Resize, width: int, height: int) -> None:
        self._resize = resize
        self._width = width
        self._height = height

    def fit(self, width: int, height: int) -> tuple[Window, Placement]:
        """What `write` would do with a frame of this size, for those who do it elsewhere."""
        window = _window(width, height, self._width, self._height, self._resize)
        return window, _place(window, width, height)

    def write(self, pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> Placement:
        """Resize one frame into its place.

        Args:
            pixels: BGR, uint8, [h, w, 3].
            out: uint8 [height, width, 3], C-contiguous; every pixel of it is written.

        Returns:
            Where the frame now lies in `out`.
        """
        height, width = pixels.shape[:2]
        window, placement = self.fit(width, height)
        left, top, right, bottom = window.source
        to_left, to_top, to_right, to_bottom = window.target
        # The border costs 0.01 ms; remembering whether it is still there would cost a rule about
        # who owns the buffers.
        out[:to_top] = BORDER
        out[to_bottom:] = BORDER
        out[to_top:to_bottom, :to_left] = BORDER
        out[to_top:to_bottom, to_right:] = BORDER
        # OpenCV writes through a view whose size and type fit, and refuses one it cannot write to.
        cv2.resize(
            pixels[top:bottom, left:right],
            (to_right - to_left, to_bottom - to_top),
            dst=out[to_top:to_bottom, to_left:to_right],
            interpolation=self._interpolation(right - left),
        )
        return placement

    def _interpolation(self, source_width: int) -> int:
        # Classifiers are trained on pictures resized with an antialiasing filter. Detectors are
        # trained on plain bilinear ones, which cost a tenth.
        if self._resize is Resize.CENTER_CROP and source_width > self._width:
            return int(cv2.INTER_AREA)
        return int(cv2.INTER_LINEAR)
