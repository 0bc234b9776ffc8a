"""Takes one picture's outputs apart into what has a meaning of its own, for comparing engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agent.vision.candidates import ANCHOR_HEAD, BOX
from engines.model import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.model import ModelInfo

SCORES = "scores"
"""Name of the part that every layout has."""

BOXES = "boxes"
EXTRA = "extra"

RANK = 3
"""Dimensions of a detector's main output, with the batch."""


def main_output(info: ModelInfo) -> str:
    """Name of the output that holds the scores."""
    rank = RANK - 1 if info.layout is Layout.CLASSES else RANK
    return next(o.name for o in info.outputs if len(o.shape) == rank)


def split(
    info: ModelInfo, outputs: Mapping[str, NDArray[Any]], index: int
) -> dict[str, NDArray[np.float32]]:
    """Name the parts of the outputs for one picture.

    Args:
        info: the model.
        outputs: by name, with a batch dimension.
        index: which picture of the batch.

    Returns:
        Float32 copies: `scores`; for layouts whose candidates keep their places also `boxes` and
        `extra` (mask coefficients, keypoints, angle); every other output under its own name. Where
        the graph sorts its candidates by score, two engines may give the same ones in another
        order; there the scores are compared in order of rank, and boxes only as detections.
    """
    main = main_output(info)
    values = np.array(outputs[main][index], np.float32)
    parts = _LAYOUTS[info.layout](values, len(info.names))
    for name, value in outputs.items():
        if name != main and np.issubdtype(value.dtype, np.floating):
            parts[name] = np.array(value[index], np.float32)
    return parts


def _yolo(values: NDArray[np.float32], classes: int) -> dict[str, NDArray[np.float32]]:
    end = BOX + classes
    parts = {BOXES: values[:BOX], SCORES: values[BOX:end]}
    return parts if len(values) == end else {**parts, EXTRA: values[end:]}


def _anchor(values: NDArray[np.float32], _classes: int) -> dict[str, NDArray[np.float32]]:
    # A class score means nothing without the objectness it is multiplied with.
    scores = values[:, ANCHOR_HEAD:] * values[:, BOX:ANCHOR_HEAD]
    return {BOXES: values[:, :BOX], SCORES: scores}


def _end2end(values: NDArray[np.float32], _classes: int) -> dict[str, NDArray[np.float32]]:
    return {SCORES: -np.sort(-values[:, BOX])}


def _detr(values: NDArray[np.float32], _classes: int) -> dict[str, NDArray[np.float32]]:
    return {SCORES: -np.sort(-values[:, BOX:].max(axis=1))}


def _classes(values: NDArray[np.float32], _classes: int) -> dict[str, NDArray[np.float32]]:
    return {SCORES: values}


_LAYOUTS = {
    Layout.YOLO: _yolo,
    Layout.ANCHOR: _anchor,
    Layout.END2END: _end2end,
    Layout.DETR: _detr,
    Layout.CLASSES: _classes,
}
