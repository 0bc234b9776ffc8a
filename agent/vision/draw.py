"""Draws detections into a picture, for people."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.detection import Detections, Mask

    Colour = tuple[int, int, int]

REFERENCE_SIDE = 640
"""Shorter side, in pixels, of a picture whose lines are 2 pixels thick."""

LEAST_UNIT = 1.6
"""Keeps text readable in small pictures."""

GOLDEN = 0.618034
"""Steps of this part of the colour circle keep neighbours in the class list far apart."""

MASK_OPACITY = 0.45

POINT_VISIBILITY = 0.5
"""Keypoints less visible than this are not drawn."""

FONT = cv2.FONT_HERSHEY_SIMPLEX

LIGHT = 140
"""Colours brighter than this, of 255, carry black text."""


def annotate(
    bgr: NDArray[np.uint8], detections: Detections, names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw what was found.

    Args:
        bgr: uint8 [h, w, 3]; not changed.
        detections: in pixels of this picture.
        names: class names by class id.

    Returns:
        A picture of the same shape.
    """
    picture = np.array(bgr, np.uint8)
    height, width = picture.shape[:2]
    unit = max(LEAST_UNIT, 2 * min(height, width) / REFERENCE_SIDE)
    thick = round(unit)
    for mask, class_id in zip(detections.masks or (), detections.class_ids.tolist(), strict=False):
        _tint(picture, mask, _colour(class_id))
    # The best is drawn last and so lies on top.
    for i in reversed(range(len(detections))):
        class_id = int(detections.class_ids[i])
        colour = _colour(class_id)
        name = names[class_id] if class_id < len(names) else str(class_id)
        x0, y0, x1, y1 = (round(v) for v in detections.boxes[i].tolist())
        place = (x0, y0)
        if detections.rotated is not None:
            corners = _corners(detections.rotated[i])
            cv2.polylines(picture, [corners], True, colour, thick, cv2.LINE_AA)
            place = tuple(corners[corners[:, 1].argmin()].tolist())
        elif (x0, y0, x1, y1) == (0, 0, width, height):
            # A class of the whole picture: tags are listed from the top, best first.
            place = (0, _tag_height(unit) * (i + 1))
        else:
            cv2.rectangle(picture, place, (x1, y1), colour, thick, cv2.LINE_AA)
        if detections.keypoints is not None:
            _points(picture, detections.keypoints[i], thick)
        _tag(picture, f"{name} {detections.scores[i]:.2f}", place, colour, unit)
    return picture


@lru_cache(maxsize=1024)
def _colour(class_id: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN % 1.0, 0.78, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def _tint(picture: NDArray[np.uint8], mask: Mask, colour: Colour) -> None:
    rows, columns = mask.bits.shape
    part = picture[mask.y : mask.y + rows, mask.x : mask.x + columns]
    mixed = part[mask.bits] * (1 - MASK_OPACITY) + np.array(colour) * MASK_OPACITY
    part[mask.bits] = mixed.astype(np.uint8)


def _corners(rotated: NDArray[np.float32]) -> NDArray[np.int32]:
    """The four corners, in order around the box."""
    x, y, width, height, angle = rotated.tolist()
    along = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
    turns = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [(x, y) + a * along + b * across for a, b in turns]
    return np.asarray(np.round(corners), np.int32)


def _points(picture: NDArray[np.uint8], keypoints: NDArray[np.float32], thick: int) -> None:
    for i, (x, y, visible) in enumerate(keypoints.tolist()):
        if visible >= POINT_VISIBILITY:
            place = (round(x), round(y))
            cv2.circle(picture, place, thick + 2, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
            cv2.circle(picture, place, thick + 1, _colour(i), cv2.FILLED, cv2.LINE_AA)


def _tag_height(unit: float) -> int:
    return round(10 * unit) + 4


def _tag(
    picture: NDArray[np.uint8], text: str, corner: tuple[int, int], colour: Colour, unit: float
) -> None:
    """Text on a coloured ground above a corner; inside the picture whatever the corner."""
    height, width = picture.shape[:2]
    # OpenCV's own font has ASCII only.
    text = text.encode("ascii", "replace").decode("ascii")
    scale = 0.24 * unit + 0.06
    stroke = max(1, int(unit / 2))
    margin = round(unit) + 1
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, scale, stroke)
    tall = _tag_height(unit)
    left = min(max(0, corner[0]), max(0, width - text_width - 2 * margin))
    top = min(max(0, corner[1] - tall), max(0, height - tall))
    far = (left + text_width + 2 * margin, top + tall)
    cv2.rectangle(picture, (left, top), far, colour, cv2.FILLED)
    bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > LIGHT
    ink = (0, 0, 0) if bright else (255, 255, 255)
    base = (left + margin, top + (tall + text_height) // 2)
    cv2.putText(picture, text, base, FONT, scale, ink, stroke, cv2.LINE_AA)
