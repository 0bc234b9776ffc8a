"""RTSP cameras."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import cv2

from agent.capture import pipelines
from agent.capture.opencv import OpenCvDevice, open_capture, open_gstreamer, use_hardware_decoder
from agent.capture.rtsp_reason import reason_for_failure
from agent.errors import CaptureError
from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import CameraConfig

OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
"""Where OpenCV looks for FFmpeg's options when it opens a stream; it takes them in no other way."""

MS_PER_S = 1000

_options_lock = threading.Lock()
"""The environment is one for the whole process, so streams are given their options one by one."""


def open_rtsp(config: CameraConfig) -> OpenCvDevice:
    """Open a stream, over TCP unless configured otherwise.

    Raises:
        CaptureError: it cannot be opened; the message tells the reason where the server does.
    """
    if use_hardware_decoder(config.decoder):
        pipeline = pipelines.rtsp(
            config.source, config.codec, config.transport, config.open_timeout_s
        )
        return _explained(config, lambda: open_gstreamer(pipeline))
    timeouts = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(config.open_timeout_s * MS_PER_S),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(config.stall_timeout_s * MS_PER_S),
    )
    return _explained(config, lambda: _open_ffmpeg(config, timeouts))


def open_rtsp_packets(config: CameraConfig) -> cv2.VideoCapture:
    """Open a stream by FFmpeg, whatever decodes it when it is served.

    Raises:
        CaptureError: as `open_rtsp`.
    """
    return open_rtsp(config.model_copy(update={"decoder": "ffmpeg"})).capture


def _open_ffmpeg(config: CameraConfig, timeouts: tuple[int, ...]) -> OpenCvDevice:
    if config.transport == "tcp" and OPTIONS_VARIABLE not in os.environ:
        # OpenCV asks for TCP when nothing else is said.
        return open_capture(config.source, cv2.CAP_FFMPEG, timeouts, finite=False)
    with _options_lock:
        before = os.environ.get(OPTIONS_VARIABLE)
        os.environ[OPTIONS_VARIABLE] = f"rtsp_transport;{config.transport}"
        try:
            return open_capture(config.source, cv2.CAP_FFMPEG, timeouts, finite=False)
        finally:
            if before is None:
                del os.environ[OPTIONS_VARIABLE]
            else:
                os.environ[OPTIONS_VARIABLE] = before


def _explained(config: CameraConfig, opening: Callable[[], OpenCvDevice]) -> OpenCvDevice:
    try:
        return opening()
    except CaptureError as error:
        reason = reason_for_failure(config.source, config.open_timeout_s)
        if reason is None:
            raise
        raise CaptureError(f"{mask_url(config.source)}: {reason}") from error
