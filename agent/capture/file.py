"""Video files: every frame, in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.capture import pipelines
from agent.capture.opencv import OpenCvDevice, open_capture, open_gstreamer, use_hardware_decoder
from agent.errors import CaptureError

if TYPE_CHECKING:
    from agent.config import CameraConfig


def open_file(config: CameraConfig) -> OpenCvDevice:
    """Open a video file.

    Raises:
        CaptureError: it is missing, not readable or no video.
    """
    path = Path(config.source.removeprefix("file://"))
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise CaptureError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if empty:
        raise CaptureError(f"{path}: the file is empty")
    if use_hardware_decoder(config.decoder):
        return open_gstreamer(pipelines.file(str(path), config.codec))
    try:
        return open_capture(str(path), cv2.CAP_FFMPEG, (), finite=True)
    except CaptureError as error:
        raise CaptureError(f"{path}: not a video that OpenCV's FFmpeg can read") from error
