"""A moving scene without a camera: `synthetic://640x480@30`, or finite with `?frames=100`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.config import CameraConfig

FORM = re.compile(r"^synthetic://(\d{2,5})x(\d{2,5})(?:@(\d+(?:\.\d+)?))?(?:\?frames=(\d+))?$")
DEFAULT_FPS = 30.0
MAX_SIDE = 8192
PERIOD_FRAMES = 90
"""The scene repeats after this many frames."""


class SyntheticDevice:
    """Discs on a gradient; a function of the frame number alone.

    Args:
        width: pixels.
        height: pixels.
        fps: rate; a live scene keeps it.
        frames: end after so many, as fast as they are read; None for a live scene without end.
    """

    codec = "synthetic"

    def __init__(self, width: int, height: int, fps: float, frames: int | None) -> None:
        self.fps = fps
        self._frames = frames
        self._next = 0
        self._began = time.monotonic()
        across = np.linspace(40, 120, width, dtype=np.uint8)
        self._background = np.ascontiguousarray(
            np.broadcast_to(across[None, :, None], (height, width, 3))
        )

    def read(self) -> NDArray[Any] | None:
        """See `agent.capture.base.Device`."""
        number = self._next
        self._next += 1
        if self._frames is not None:
            return self.picture(number) if number < self._frames else None
        due = self._began + number / self.fps
        wait_s = due - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        else:
            # Like a camera, the scene does not make up for frames that nobody took.
            self._began -= wait_s
        return self.picture(number)

    def picture(self, number: int) -> NDArray[np.uint8]:
        """The frame of this number."""
        picture: NDArray[np.uint8] = self._background.copy()
        height, width = picture.shape[:2]
        phase = 2 * np.pi * (number % PERIOD_FRAMES) / PERIOD_FRAMES
        for disc, colour in enumerate(((60, 60, 220), (60, 200, 60), (220, 140, 40))):
            x = round(width * (0.5 + 0.35 * np.cos(phase + disc * 2.1)))
            y = round(height * (0.5 + 0.35 * np.sin(phase + disc * 2.1)))
            cv2.circle(picture, (x, y), max(4, min(width, height) // 10), colour, -1, cv2.LINE_AA)
        return picture

    def close(self) -> None:
        """See `agent.capture.base.Device`."""


def open_synthetic(config: CameraConfig) -> SyntheticDevice:
    """Make the scene.

    Raises:
        ConfigError: the source is not written as it should be.
    """
    match = FORM.match(config.source)
    if match is None or max(int(match[1]), int(match[2])) > MAX_SIDE:
        raise ConfigError(
            f"{config.source}: a synthetic scene is written synthetic://640x480@30 or, finite, "
            f"synthetic://640x480@30?frames=100; sides up to {MAX_SIDE} pixels"
        )
    fps = float(match[3] or DEFAULT_FPS)
    if fps <= 0:
        raise ConfigError(f"{config.source}: the rate must be above zero")
    return SyntheticDevice(int(match[1]), int(match[2]), fps, int(match[4]) if match[4] else None)
