"""Opens things with OpenCV: the one place that knows its capture class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import CaptureError
from agent.secrets import mask_url

try:
    import cv2
except ImportError as error:
    raise CaptureError(
        "OpenCV is not installed: pip install 'vigia-agent[opencv]', or on a Jetson create the "
        "environment with --system-site-packages to use JetPack's"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

JETSON_MARKS = (Path("/etc/nv_tegra_release"), Path("/dev/nvhost-ctrl"))
"""Files that only a Jetson's system has."""


class OpenCvDevice:
    """A `cv2.VideoCapture`.

    Args:
        capture: opened.
        finite: True if a failed read means the end, False if it means that the camera is lost.
        what: name for messages.
    """

    def __init__(self, capture: cv2.VideoCapture, *, finite: bool, what: str) -> None:
        self._capture = capture
        self._finite = finite
        self._what = what
        self.fps = max(0.0, float(capture.get(cv2.CAP_PROP_FPS)))
        self.codec = _fourcc(int(capture.get(cv2.CAP_PROP_FOURCC)))

    @property
    def capture(self) -> cv2.VideoCapture:
        """What is behind it; whoever takes it closes it."""
        return self._capture

    def read(self) -> NDArray[Any] | None:
        """See `agent.capture.base.Device`."""
        try:
            ok, pixels = self._capture.read()
        except cv2.error as error:
            raise CaptureError(f"{self._what}: {str(error).strip()}") from error
        if ok:
            return pixels
        if self._finite:
            return None
        raise CaptureError(f"{self._what}: the stream ended or was lost")

    def close(self) -> None:
        """See `agent.capture.base.Device`."""
        self._capture.release()


def open_capture(
    source: str | int, api: int, parameters: Sequence[int], *, finite: bool
) -> OpenCvDevice:
    """Open a source with one of OpenCV's back ends.

    Args:
        source: URL, path, pipeline or device number.
        api: `cv2.CAP_*`.
        parameters: property and value in turn, as `cv2.VideoCapture` takes them.
        finite: whether the source has an end.

    Raises:
        CaptureError: OpenCV cannot open it.
    """
    what = mask_url(str(source))
    options = list(parameters)
    if api == cv2.CAP_FFMPEG and hasattr(cv2, "CAP_PROP_N_THREADS"):
        # Each camera has a thread already. More would decode ahead, and so deliver later, and cost
        # a quarter more processor time for the same frames.
        options += [cv2.CAP_PROP_N_THREADS, 1]
    try:
        capture = cv2.VideoCapture(source, api, options)
    except cv2.error as error:
        raise CaptureError(f"{what}: {str(error).strip()}") from error
    if not capture.isOpened():
        capture.release()
        raise CaptureError(f"{what}: OpenCV cannot open it")
    return OpenCvDevice(capture, finite=finite, what=what)


def open_gstreamer(pipeline: str) -> OpenCvDevice:
    """Open a GStreamer pipeline that ends in an appsink.

    Raises:
        CaptureError: this OpenCV is built without GStreamer, or the pipeline does not start.
    """
    if not has_gstreamer():
        raise CaptureError(
            "this OpenCV is built without GStreamer; use JetPack's OpenCV (an environment with "
            "--system-site-packages) or another kind of source"
        )
    return open_capture(pipeline, cv2.CAP_GSTREAMER, (), finite=False)


def has_gstreamer() -> bool:
    """True if this OpenCV can run GStreamer pipelines."""
    return any(
        "GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()
    )


def on_jetson(marks: Sequence[Path] = JETSON_MARKS) -> bool:
    """True on a Jetson."""
    return any(mark.exists() for mark in marks)


def use_hardware_decoder(decoder: str) -> bool:
    """Whether to decode with GStreamer: asked for, or possible on a Jetson."""
    return decoder == "gstreamer" or (decoder == "auto" and on_jetson() and has_gstreamer())


def _fourcc(value: int) -> str:
    letters = "".join(chr((value >> shift) & 0xFF) for shift in (0, 8, 16, 24))
    return letters.strip("\0 ") if letters.isprintable() or value else ""
