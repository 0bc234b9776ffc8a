"""CSI cameras of a Jetson: `csi://0`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.capture import pipelines
from agent.capture.opencv import OpenCvDevice, open_gstreamer
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config import CameraConfig

DEFAULT_WIDTH, DEFAULT_HEIGHT, DEFAULT_FPS = 1280, 720, 30.0
"""A mode that all common sensors (IMX219, IMX477) have."""


def open_csi(config: CameraConfig) -> OpenCvDevice:
    """Open a sensor by its number.

    Raises:
        ConfigError: the source names no sensor.
        CaptureError: it cannot be opened.
    """
    number = config.source.removeprefix("csi://")
    if not number.isdigit():
        raise ConfigError(f"{config.source}: a CSI camera is written csi://0, csi://1, …")
    return open_gstreamer(
        pipelines.csi(
            int(number),
            config.width or DEFAULT_WIDTH,
            config.height or DEFAULT_HEIGHT,
            config.device_fps or DEFAULT_FPS,
        )
    )
