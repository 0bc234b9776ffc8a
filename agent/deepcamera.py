"""What a network camera sends, and what of it will hurt. Judging is pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import Finding
from agent.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.capture.packets import Stream
    from agent.config import CameraConfig

WATCH_S = 6.0
"""Longer than a key frame distance that is still good."""

LONG_GOP_S = 4.0
"""After a lost packet the picture is broken until the next key frame; opening waits for one too."""

FPS_SHARE = 0.85
"""Of the rate that is claimed or wanted; less is told."""

MBIT = 1e6
MUCH_BITS_PER_S = 16 * MBIT
HARDWARE_CODECS = ("h264", "avc1", "h265", "hevc", "hev1", "mjpg", "mjpeg", "jpeg")
"""What Jetsons decode in hardware everywhere."""


def look(name: str, config: CameraConfig, timeout_s: float, *, jetson: bool) -> Iterator[Finding]:
    """Watch one camera, if it is an RTSP one that is enabled."""
    from agent.capture.base import kind_of  # noqa: PLC0415 - OpenCV may be missing
    from agent.capture.packets import watch  # noqa: PLC0415

    if not config.enabled or kind_of(config) != "rtsp":
        return
    limited = config.model_copy(update={"open_timeout_s": timeout_s, "stall_timeout_s": timeout_s})
    try:
        stream = watch(limited, WATCH_S)
    except CaptureError as error:
        what, _, fix = str(error).rpartition("; ")
        fix = fix if what else "see what `vigia cameras probe` says"
        yield Finding(f"cameras.{name}.stream", "fail", what or str(error), fix)
        return
    yield from judge(name, stream, wanted_fps=config.fps, jetson=jetson)


def judge(
    name: str, stream: Stream, *, wanted_fps: float | None = None, jetson: bool = False
) -> Iterator[Finding]:
    """Pure: what is good and what is not.

    Args:
        name: of the camera.
        stream: what came.
        wanted_fps: as configured.
        jetson: whether a hardware decoder is to take it.
    """
    key = f"cameras.{name}.stream"
    distance = f"a key frame every {stream.gop} pictures" if stream.gop else "key frames are rare"
    yield Finding(
        key, "ok",
        f"{stream.codec or 'codec unknown'}, {stream.fps:.1f} fps "
        f"({stream.claimed_fps:.0f} claimed), {distance}, {stream.bits_per_s / MBIT:.2f} Mbit/s, "
        f"{'B-frames' if stream.delay else 'no B-frames'}",
    )  # fmt: skip
    yield from _key_frames(name, stream)
    if stream.delay:
        what = f"B-frames: each picture comes {stream.delay} pictures late"
        fix = (
            "choose the profile `baseline`, or switch off B-frames and `smart codec` in the camera"
        )
        yield Finding(f"cameras.{name}.b_frames", "warn", what, fix)
    # A claim may be the clock's rate, like 90000.
    claimed = stream.claimed_fps if stream.claimed_fps <= 240 else 0.0  # noqa: PLR2004
    wanted = max(wanted_fps or 0.0, 0.0) or claimed
    if stream.fps and wanted and stream.fps < FPS_SHARE * wanted:
        what = f"{stream.fps:.1f} pictures a second come, not {wanted:.0f}"
        fix = (
            "raise the rate in the camera, its shutter in the dark, or look for loss in the network"
        )
        yield Finding(f"cameras.{name}.fps", "warn", what, fix)
    if stream.bits_per_s > MUCH_BITS_PER_S:
        what = f"{stream.bits_per_s / MBIT:.0f} Mbit/s is much for what is seen in it"
        fix = "take the camera's second stream, or a lower bit rate"
        yield Finding(f"cameras.{name}.rate", "warn", what, fix)
    if jetson and stream.codec and stream.codec not in HARDWARE_CODECS:
        what = f"{stream.codec} has no hardware decoder here: the processor does it"
        yield Finding(f"cameras.{name}.codec", "warn", what, "choose H.264 or H.265 in the camera")


def _key_frames(name: str, stream: Stream) -> Iterator[Finding]:
    """A distance that is too long, or was not seen."""
    seen_s = stream.gop / stream.fps if stream.gop and stream.fps else stream.seconds
    if stream.gop and seen_s <= LONG_GOP_S:
        return
    if not stream.gop and stream.seconds < LONG_GOP_S:
        # Nothing to say: it was not watched for long enough.
        return
    long = f"{seen_s:.1f} s from one key frame to the next"
    what = long if stream.gop else f"no second key frame in {stream.seconds:.0f} s"
    what += ": after a lost packet the picture stays broken for so long"
    fix = "set the I-frame interval in the camera to 1 or 2 s, and `smart codec` (H.264+) off"
    yield Finding(f"cameras.{name}.gop", "warn", what, fix)
