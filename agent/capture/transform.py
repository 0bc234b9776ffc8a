"""Brings pictures into the form that was configured: BGR, turned, mirrored, cropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.errors import CaptureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.config import CameraConfig

ROTATIONS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
FLIPS = {"horizontal": 1, "vertical": 0, "both": -1}

GREY, BGR, BGRA = 1, 3, 4
"""Numbers of channels."""

BITS_DROPPED = 8
"""A 16-bit sample keeps its upper 8 bits."""


def as_bgr8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring what a camera gave to BGR, 8 bits, C-contiguous; without a copy where it is already.

    Args:
        pixels: uint8 or uint16, [h, w], [h, w, 1] (grey), [h, w, 3] (BGR) or [h, w, 4] (BGRA).

    Returns:
        uint8 [h, w, 3].

    Raises:
        CaptureError: any other type or shape, or a picture without pixels.
    """
    described = f"a frame is {pixels.dtype} of shape {list(pixels.shape)}"
    if pixels.dtype not in (np.uint8, np.uint16):
        raise CaptureError(f"{described}; 8 or 16 bits a sample are understood")
    channels = {2: GREY, 3: pixels.shape[-1]}.get(pixels.ndim) if pixels.ndim else None
    if channels not in (GREY, BGR, BGRA):
        raise CaptureError(f"{described}; grey, BGR or BGRA are understood")
    if pixels.size == 0:
        raise CaptureError(f"{described}: it has no pixels")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> BITS_DROPPED).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels)
    if channels == GREY:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    if channels == BGRA:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR), np.uint8)
    return pixels


def transform(pixels: NDArray[Any], config: CameraConfig) -> NDArray[np.uint8]:
    """Convert, rotate, flip and crop, in this order.

    Returns:
        BGR uint8 [h, w, 3], C-contiguous, not writable.

    Raises:
        CaptureError: see `as_bgr8`.
    """
    picture = as_bgr8(pixels)
    if config.rotate:
        picture = cv2.rotate(picture, ROTATIONS[config.rotate])  # type: ignore[assignment]
    if config.flip != "none":
        picture = cv2.flip(picture, FLIPS[config.flip])  # type: ignore[assignment]
    if config.crop is not None:
        height, width = picture.shape[:2]
        crop = config.crop
        left, top = int(crop.left * width), int(crop.top * height)
        right = max(left + 1, round(crop.right * width))
        bottom = max(top + 1, round(crop.bottom * height))
        picture = np.ascontiguousarray(picture[top:bottom, left:right])
    picture.flags.writeable = False
    return picture
