"""Looks at a stream as the camera sends it, before it is decoded: key frames, bytes, reordering.

OpenCV hands out the packets themselves, so no other program is needed and no password stands in a
command line.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2

from agent.capture.probe import steady_fps
from agent.capture.rtsp import open_rtsp_packets
from agent.errors import CaptureError

if TYPE_CHECKING:
    from agent.config import CameraConfig

MAX_PACKETS = 3000
"""A minute of fifty frames a second."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What came in the time that was given.

    Attributes:
        codec: like "h264".
        claimed_fps: as the stream says; 0 if it does not.
        seconds: from the first packet to the last.
        packets: pictures that came.
        size: bytes of all of them.
        keys: which of them were key frames, counted from 0.
        delay: pictures that are sent before they are shown, so by how many B-frames delay; 0: none.
        rate: pictures a second once what the camera had held back was through; 0: not known.
    """

    codec: str
    claimed_fps: float
    seconds: float
    packets: int
    size: int
    keys: tuple[int, ...]
    delay: int = 0
    rate: float = 0.0

    @property
    def fps(self) -> float:
        """Pictures a second."""
        if self.rate:
            return self.rate
        return (self.packets - 1) / self.seconds if self.seconds > 0 and self.packets > 1 else 0.0

    @property
    def gop(self) -> int:
        """Pictures from a key frame to the next, the most seen; 0 if fewer than two came."""
        return max((b - a for a, b in zip(self.keys, self.keys[1:], strict=False)), default=0)

    @property
    def bits_per_s(self) -> float:
        """Rate of the stream."""
        return self.size * 8 / self.seconds if self.seconds > 0 else 0.0


def watch(config: CameraConfig, seconds: float) -> Stream:
    """Read packets for some seconds.

    Args:
        config: an RTSP camera.
        seconds: how long; a GOP longer than this is not seen whole.

    Raises:
        CaptureError: it cannot be opened, or this OpenCV cannot hand out packets.
    """
    capture = open_rtsp_packets(config)
    try:
        if not capture.set(cv2.CAP_PROP_FORMAT, -1):
            raise CaptureError("this OpenCV cannot hand out packets; use one with FFmpeg")
        return _read(capture, seconds)
    finally:
        capture.release()


def _read(capture: cv2.VideoCapture, seconds: float) -> Stream:
    keys: list[int] = []
    arrivals: list[float] = []
    count = size = 0
    first = last = time.monotonic()
    while count < MAX_PACKETS and (count == 0 or last - first < seconds):
        good, packet = capture.read()
        if not good or packet is None:
            break
        last = time.monotonic()
        first = first if count else last
        arrivals.append(last)
        if capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
            keys.append(count)
        count, size = count + 1, size + int(packet.size)
    if not count:
        raise CaptureError("no picture came; look whether the camera serves another stream path")
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC))
    letters = "".join(chr((fourcc >> shift) & 0xFF) for shift in (0, 8, 16, 24)).strip("\0 ")
    delay = getattr(cv2, "CAP_PROP_DTS_DELAY", None)
    return Stream(
        codec=letters.lower() if letters.isprintable() else "",
        claimed_fps=max(0.0, float(capture.get(cv2.CAP_PROP_FPS))),
        seconds=last - first,
        packets=count,
        size=size,
        keys=tuple(keys),
        delay=max(0, int(capture.get(delay))) if delay is not None else 0,
        rate=steady_fps(arrivals),
    )
