"""Any GStreamer pipeline that ends in an appsink with BGR frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.capture.opencv import OpenCvDevice, open_gstreamer
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config import CameraConfig


def open_pipeline(config: CameraConfig) -> OpenCvDevice:
    """Run the pipeline as it is written.

    Raises:
        ConfigError: it has no appsink.
        CaptureError: it does not start.
    """
    if "appsink" not in config.source:
        raise ConfigError("a GStreamer source must end in `! appsink` to give frames")
    return open_gstreamer(config.source)
