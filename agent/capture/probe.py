"""Opens a source once and says what it gives."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.capture.base import kind_of, open_device
from agent.capture.transform import transform
from agent.errors import AgentError, CaptureError
from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import CameraConfig

FRAMES = 30
"""Frames read to measure the rate, as long as time allows."""

MAX_PROBES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a source gave.

    Attributes:
        camera: its name.
        source: what was opened, passwords hidden.
        kind: camera kind.
        ok: whether a frame came.
        reason: why not; empty if it did.
        width: of a frame after rotation and crop, pixels.
        height: likewise.
        fps: measured rate; 0 if fewer than two frames came.
        codec: as the source tells it; may be empty.
        first_frame_ms: from opening to the first frame.
    """

    camera: str
    source: str
    kind: str
    ok: bool
    reason: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    codec: str = ""
    first_frame_ms: float = 0.0

    def text(self) -> str:
        """One line for people."""
        if not self.ok:
            return f"{self.camera}: FAILED: {self.reason}"
        return (
            f"{self.camera}: {self.width}x{self.height}, {self.fps:.1f} fps, "
            f"{self.codec or 'codec unknown'}, first frame after {self.first_frame_ms:.0f} ms"
        )


def probe(name: str, config: CameraConfig, timeout_s: float) -> ProbeReport:
    """Open one source and read some frames; a driver that hangs is left behind."""
    reports: list[ProbeReport] = []
    thread = threading.Thread(
        target=lambda: reports.append(_probe(name, config, timeout_s)), daemon=True
    )
    thread.start()
    thread.join(2 * timeout_s)
    if reports:
        return reports[0]
    reason = f"no answer within {2 * timeout_s:g} s"
    return ProbeReport(name, mask_url(config.source), config.kind, ok=False, reason=reason)


def probe_all(cameras: Mapping[str, CameraConfig], timeout_s: float) -> list[ProbeReport]:
    """Probe many sources at once; reports come in the order of the cameras."""
    with ThreadPoolExecutor(MAX_PROBES_AT_ONCE) as pool:
        return list(pool.map(lambda item: probe(item[0], item[1], timeout_s), cameras.items()))


def _probe(name: str, config: CameraConfig, timeout_s: float) -> ProbeReport:
    source, kind = mask_url(config.source), str(config.kind)
    limited = config.model_copy(update={"open_timeout_s": timeout_s, "stall_timeout_s": timeout_s})
    try:
        kind = kind_of(config)
        began = time.monotonic()
        device = open_device(limited)
        try:
            pixels = device.read()
            if pixels is None:
                raise CaptureError(f"{source}: the source has no frames")
            picture = transform(pixels, config)
            first = last = time.monotonic()
            count = 1
            while count < FRAMES and last - began < timeout_s and device.read() is not None:
                last, count = time.monotonic(), count + 1
            # A file is read as fast as it goes; what it claims is the better answer.
            fps = device.fps if kind == "file" else (count - 1) / max(last - first, 1e-6)
            return ProbeReport(
                name,
                source,
                kind,
                ok=True,
                width=int(picture.shape[1]),
                height=int(picture.shape[0]),
                fps=round(fps, 2) if count > 1 else 0.0,
                codec=device.codec,
                first_frame_ms=round((first - began) * 1e3, 1),
            )
        finally:
            device.close()
    except AgentError as error:
        return ProbeReport(name, source, kind, ok=False, reason=str(error))
