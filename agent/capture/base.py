"""What every camera kind has in common: an opened device that gives pixels.

A device knows nothing of queues, reconnection or transforms; `agent.capture.camera` adds them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from agent.config import CameraConfig

GLOB_CHARACTERS = re.compile(r"[*?\[]")

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class Device(Protocol):
    """An opened source of pictures, used from one thread."""

    @property
    def fps(self) -> float:
        """Pictures a second that the source claims to give; 0 if it does not say."""

    @property
    def codec(self) -> str:
        """Short name of the codec, or empty if unknown."""

    def read(self) -> NDArray[Any] | None:
        """Wait for the next picture.

        Returns:
            Pixels as `agent.capture.transform.as_bgr8` understands them, or None at the end.

        Raises:
            CaptureError: the device failed.
        """

    def close(self) -> None:
        """Give the device back; never raises."""


def kind_of(config: CameraConfig) -> str:
    """The camera kind: the configured one, or what `source` looks like."""
    if config.kind != "auto":
        return config.kind
    source = config.source
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    by_scheme = {
        "rtsp": "rtsp",
        "rtsps": "rtsp",
        "http": "http",
        "https": "http",
        "csi": "csi",
        "synthetic": "synthetic",
        "file": "file",
    }
    if scheme in by_scheme and "!" not in source:
        return by_scheme[scheme]
    if "!" in source:
        return "gstreamer"
    if source.isdigit() or source.startswith("/dev/"):
        return "v4l2"
    if scheme:
        raise ConfigError(
            f"a source of scheme {scheme}:// is not known; known are {', '.join(by_scheme)}, "
            "or say `kind:` yourself"
        )
    path = Path(source)
    if GLOB_CHARACTERS.search(source) or path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        return "images"
    return "file"


def is_live(config: CameraConfig) -> bool:
    """True if frames are lost when nobody takes them; files, pictures and finite scenes are not."""
    kind = kind_of(config)
    if kind == "synthetic":
        return "frames=" not in config.source
    return kind not in ("file", "images")


def open_device(config: CameraConfig) -> Device:
    """Open a source.

    Raises:
        CaptureError: it cannot be opened now.
        ConfigError: it can never be opened as it is written.
    """
    # Imported here so that a missing library for one kind is no reason to refuse another.
    from agent.capture import (  # noqa: PLC0415
        csi,
        file,
        gstreamer,
        http,
        images,
        rtsp,
        synthetic,
        v4l2,
    )

    openers: dict[str, Callable[[CameraConfig], Device]] = {
        "file": file.open_file,
        "images": images.open_images,
        "rtsp": rtsp.open_rtsp,
        "v4l2": v4l2.open_v4l2,
        "csi": csi.open_csi,
        "gstreamer": gstreamer.open_pipeline,
        "http": http.open_http,
        "synthetic": synthetic.open_synthetic,
    }
    return openers[kind_of(config)](config)
