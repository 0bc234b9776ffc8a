"""Pictures that a model is calibrated and judged with, prepared as its graph takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


class Images(Protocol):
    """A set of pictures in a fixed order, read when it is iterated and not kept in memory."""

    @property
    def digest(self) -> str:
        """`sha256:` and the hex digest of the pictures' content and of how they were chosen."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Give each picture: uint8 BGR [height, width, 3] at the model's input size.

        Raises:
            CalibrationError: a picture cannot be read any more.
        """
