"""Reads ground truth: what really is in the pictures that engines are judged by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.vision.metrics import Labelled
from engines.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.calibration import PictureSet

SCHEMA = "vigia.ground-truth/1"

COLUMNS = 5
"""Of a row: x0 y0 x1 y1 in pixels of the original picture, and the class."""


def truths(path: Path, pictures: PictureSet) -> tuple[Labelled, ...]:
    """Ground truth of some pictures.

    The file is JSON with `schema`, `names` (class names, in the order of the rows' class numbers)
    and either `frames`, a list with the rows of every frame of a video, or `pictures`, an object
    with the rows of every file of a folder by its name. A row is x0, y0, x1, y1, class.

    Args:
        path: the file.
        pictures: which pictures; the class names of their model are looked up by name.

    Returns:
        One for each picture, in order.

    Raises:
        CalibrationError: the file is not one, or lacks a picture or a class.
    """
    return read_truths(path, pictures.keys, pictures.info.names)


def read_truths(
    path: Path, pictures: Sequence[str], model_names: Sequence[str]
) -> tuple[Labelled, ...]:
    """As `truths`, for pictures by name: a file's name, or a frame's number.

    Raises:
        CalibrationError: likewise.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
        if value["schema"] != SCHEMA:
            raise CalibrationError(f"ground truth {path}: its schema is not {SCHEMA}")
        ids = _class_ids(path, value["names"], model_names)
        frames, named = value.get("frames", []), value.get("pictures", {})
        rows = {str(number): table for number, table in enumerate(frames)} | dict(named)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CalibrationError(f"ground truth {path}: not a ground-truth file: {error}") from error
    missing = [key for key in pictures if key not in rows]
    if missing:
        raise CalibrationError(
            f"ground truth {path}: {len(missing)} of {len(pictures)} pictures are not in it, "
            f"{missing[0]} for one; is it of other pictures?"
        )
    return tuple(_labelled(path, key, rows[key], ids) for key in pictures)


def _class_ids(path: Path, names: Sequence[str], model_names: Sequence[str]) -> list[int]:
    """The model's class number for each of the file's."""
    unknown = [name for name in names if name not in model_names]
    if unknown:
        raise CalibrationError(
            f"ground truth {path}: the model has no class {unknown[0]!r}; "
            f"it has {', '.join(model_names[:20])}"
        )
    return [model_names.index(name) for name in names]


def _labelled(path: Path, key: str, rows: Any, ids: list[int]) -> Labelled:
    try:
        table = np.array(rows, np.float32)
    except (ValueError, TypeError, OverflowError):
        table = np.empty((0, 0), np.float32)
    if table.shape == (0,):
        table = table.reshape(0, COLUMNS)
    sound = table.shape[1:] == (COLUMNS,) and bool(np.isfinite(table).all())
    if not sound or not np.isin(table[:, 4], np.arange(len(ids))).all():
        raise CalibrationError(
            f"ground truth {path}: picture {key}: a row is five numbers, x0, y0, x1, y1 and the "
            f"class, 0..{len(ids) - 1}"
        )
    class_ids = np.array(ids, np.int32)[table[:, 4].astype(np.int32)]
    return Labelled(table[:, :4], class_ids, np.ones(len(table), np.float32))
