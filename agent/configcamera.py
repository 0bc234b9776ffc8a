"""Settings of a camera."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.configbase import Fraction, Name, Seconds, Section, Whole

FOURCC_PATTERN = r"^[ -~]{4}$"
"""Video4Linux's four-character codes are printable ASCII."""


class CropConfig(Section):
    """A region of interest, as fractions of the rotated and flipped picture."""

    left: Fraction = Field(default=0.0, description="Left edge; 0 is the picture's left edge.")
    top: Fraction = Field(default=0.0, description="Top edge; 0 is the picture's top edge.")
    right: Fraction = Field(default=1.0, description="Right edge; 1 is the picture's right edge.")
    bottom: Fraction = Field(default=1.0, description="Bottom edge; 1 is the picture's bottom.")

    @model_validator(mode="after")
    def _ordered(self) -> CropConfig:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("left must be less than right, and top less than bottom")
        return self


class CameraConfig(Section):
    """One source of frames."""

    source: str = Field(
        min_length=1,
        json_schema_extra={"type": ["string", "integer"]},
        description="rtsp://…, http(s)://…, /dev/videoN or a number, csi://N, a file, folder or "
        "glob, synthetic://WxH@FPS, or a GStreamer pipeline ending in an appsink.",
    )
    kind: Literal[
        "auto", "file", "images", "rtsp", "v4l2", "csi", "gstreamer", "http", "synthetic"
    ] = Field(default="auto", description="auto: told from `source`.")
    enabled: bool = Field(default=True, description="false: leave it alone, but keep its settings.")
    model: Name = Field(default="main", description="Which of `models` looks at it.")
    fps: float | None = Field(default=None, gt=0, le=1000, description="Frames a second at most.")
    rotate: Annotated[Literal[0, 90, 180, 270], Whole] = Field(
        default=0, description="Degrees clockwise."
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="Mirror after rotating; horizontal swaps left and right."
    )
    crop: CropConfig | None = Field(
        default=None, description="Look at a part of the picture only; default: all of it."
    )
    max_age_ms: float | None = Field(
        default=None, gt=0, description="Live frames older than this are not inferred."
    )
    loop: bool = Field(default=False, description="Files: start over at the end.")
    realtime: bool = Field(default=False, description="Files: play at the file's own speed.")
    width: int | None = Field(default=None, ge=16, le=16_384, description="Asked of V4L2 or CSI.")
    height: int | None = Field(default=None, ge=16, le=16_384, description="Asked of V4L2 or CSI.")
    device_fps: float | None = Field(default=None, gt=0, le=1000, description="Asked of them too.")
    fourcc: str | None = Field(default=None, pattern=FOURCC_PATTERN, description="V4L2, e.g. MJPG.")
    transport: Literal["tcp", "udp"] = Field(default="tcp", description="RTSP transport.")
    codec: Literal["auto", "h264", "h265", "mjpeg"] = Field(
        default="auto", description="RTSP or file codec, for the hardware decoder."
    )
    decoder: Literal["auto", "gstreamer", "ffmpeg"] = Field(
        default="auto", description="auto: GStreamer's hardware decoder on a Jetson, else FFmpeg."
    )
    open_timeout_s: Seconds = Field(
        default=10.0, description="An attempt to open a live source is given up after this."
    )
    stall_timeout_s: Seconds = Field(default=5.0, description="No frame for this long: reopen.")
    reconnect_initial_s: Seconds = Field(
        default=0.5, description="Wait before the second attempt; each later one about doubles."
    )
    reconnect_max_s: Seconds = Field(default=30.0, description="Longest wait between attempts.")
