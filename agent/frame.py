"""One captured picture, with its identity and its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture as the camera gave it; nobody writes into it after capture.

    Attributes:
        pixels: BGR, uint8, shape [height, width, 3], C-contiguous.
        camera: name of the camera in the configuration.
        index: number of the frame since the source was first opened, from 0. It never goes back,
            not even when the source reconnects or a file starts over, and counts frames that an
            `fps` limit skipped, so a gap is visible.
        monotonic_ns: `time.monotonic_ns()` at capture; ages are differences of this clock.
        wall_s: seconds since the epoch at capture; for people and other machines.
    """

    pixels: NDArray[np.uint8]
    camera: str
    index: int
    monotonic_ns: int
    wall_s: float

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])
