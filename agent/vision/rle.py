"""Masks as COCO's compressed run-length encoding, the text that pycocotools calls `counts`.

Pixels are counted column by column, runs of 0 and 1 in turn beginning with 0. From the fourth run
on, the difference to the run two before is stored. Each number is written in groups of five bits,
lowest first, signed, bit 32 marking that another group follows, each group plus 48 as a character
(https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c, rleToString).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.detection import Mask

GROUP_BITS = 5
GROUP_MASK = 31
MORE = 32
SIGN = 16
FIRST_CHARACTER = 48
MAX_GROUPS = 13
"""Groups of a 64-bit number."""

FIRST_DIFFERENCE = 3
"""The run from which on differences are stored."""


def encode(mask: Mask, width: int, height: int) -> str:
    """Encode a mask of a frame.

    Args:
        mask: lies inside the frame.
        width: frame width in pixels.
        height: frame height in pixels.

    Returns:
        ASCII text; with `[height, width]` it is a COCO RLE object.
    """
    return _to_text(_runs(mask, width, height))


def decode(text: str, width: int, height: int) -> NDArray[np.bool_]:
    """Decode to a whole frame.

    Args:
        text: what `encode` or pycocotools wrote.
        width: frame width in pixels.
        height: frame height in pixels.

    Returns:
        bool [height, width].

    Raises:
        OutputError: the text is no such encoding, or of another frame size.
    """
    values = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64)
    values -= FIRST_CHARACTER
    runs: list[int] = []
    value = shift = 0
    for group in values.tolist():
        if not 0 <= group < 2 * MORE or shift >= MAX_GROUPS * GROUP_BITS:
            raise OutputError("the mask is not COCO compressed run-length encoding")
        value |= (group & GROUP_MASK) << shift
        shift += GROUP_BITS
        if not group & MORE:
            if group & SIGN:
                value -= 1 << shift
            if len(runs) >= FIRST_DIFFERENCE:
                value += runs[-2]
            runs.append(value)
            value = shift = 0
    if shift or sum(runs) != width * height or min(runs, default=0) < 0:
        raise OutputError(f"the mask is truncated or not of a frame of {width}x{height} pixels")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(bits.reshape(width, height).T)


def _runs(mask: Mask, width: int, height: int) -> NDArray[np.int64]:
    """Lengths of the runs over the frame, from the mask's crop alone."""
    rows, columns = mask.bits.shape
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = mask.bits.T
    change = np.diff(padded, axis=1)
    column, row = np.nonzero(change)
    place = (column + mask.x) * height + row + mask.y
    # A run that ends a column where another begins the next one is one run.
    joined = np.flatnonzero(place[1:-1:2] == place[2::2]) * 2 + 1
    place = np.delete(place, np.concatenate([joined, joined + 1]))
    runs = np.diff(place, prepend=0, append=width * height)
    return runs[:-1] if runs[-1] == 0 else runs


def _to_text(runs: NDArray[np.int64]) -> str:
    numbers = runs.copy()
    numbers[FIRST_DIFFERENCE:] -= runs[1:-2] if len(runs) > FIRST_DIFFERENCE else 0
    groups = []
    used = []
    going = np.ones(len(numbers), np.bool_)
    while going.any():
        group = numbers & GROUP_MASK
        numbers = numbers >> GROUP_BITS
        more = np.where(group & SIGN, numbers != -1, numbers != 0)
        groups.append(group + np.where(more, MORE, 0) + FIRST_CHARACTER)
        used.append(going)
        going = going & more
    table = np.stack(groups, axis=1).astype(np.uint8)
    return table[np.stack(used, axis=1)].tobytes().decode("ascii")
