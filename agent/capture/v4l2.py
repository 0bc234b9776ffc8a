"""USB and other V4L2 cameras, by number or path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.capture.opencv import OpenCvDevice, open_capture
from agent.errors import CaptureError

if TYPE_CHECKING:
    from agent.config import CameraConfig


def open_v4l2(config: CameraConfig) -> OpenCvDevice:
    """Open a camera and ask for size, rate and format.

    Raises:
        CaptureError: it is not there, not permitted or busy.
    """
    path = Path(f"/dev/video{config.source}" if config.source.isdigit() else config.source)
    if not path.exists():
        raise CaptureError(
            f"{path}: no such camera; plugged in? `v4l2-ctl --list-devices` lists them"
        )
    try:
        path.open("rb").close()
    except PermissionError as error:
        raise CaptureError(f"{path}: not permitted; add the user to the group `video`") from error
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    wanted = {
        # The format comes first: it decides which sizes and rates there are.
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*config.fourcc) if config.fourcc else None,
        cv2.CAP_PROP_FRAME_WIDTH: config.width,
        cv2.CAP_PROP_FRAME_HEIGHT: config.height,
        cv2.CAP_PROP_FPS: None if config.device_fps is None else round(config.device_fps),
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }
    parameters = [int(n) for item in wanted.items() if item[1] is not None for n in item]  # type: ignore[arg-type]
    return open_capture(str(path), cv2.CAP_V4L2, parameters, finite=False)
