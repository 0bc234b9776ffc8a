"""Pictures: one, a folder of them, or a glob."""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from agent.capture.base import PICTURE_SUFFIXES
from agent.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agent.config import CameraConfig

log = logging.getLogger(__name__)


class ImageDevice:
    """Reads pictures in order of their names; one that cannot be read is told and passed over.

    Attributes:
        unreadable: pictures passed over.
    """

    fps = 0.0
    codec = "image"

    def __init__(self, paths: list[Path]) -> None:
        self._paths: Iterator[Path] = iter(paths)
        self._given = 0
        self.unreadable = 0

    def read(self) -> NDArray[Any] | None:
        """See `agent.capture.base.Device`."""
        for path in self._paths:
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if pixels is not None:
                self._given += 1
                return pixels
            self.unreadable += 1
            log.warning("%s: not a picture that OpenCV can read; passed over", path)
        if not self._given:
            raise CaptureError(f"none of {self.unreadable} pictures can be read")
        return None

    def close(self) -> None:
        """See `agent.capture.base.Device`."""


def open_images(config: CameraConfig) -> ImageDevice:
    """Find the pictures.

    Raises:
        CaptureError: there are none.
    """
    path = Path(config.source)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES]
    elif path.exists():
        found = [path]
    else:
        found = [Path(p) for p in glob.glob(config.source, recursive=True)]  # noqa: PTH207 - absolute
    if not found:
        raise CaptureError(f"{config.source}: no pictures there")
    return ImageDevice(sorted(found))
