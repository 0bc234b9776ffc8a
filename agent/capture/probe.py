"""Opens a source once and says what it gives."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.capture.base import is_live, kind_of, open_device
from agent.capture.transform import transform
from agent.errors import AgentError, CaptureError
from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.capture.base import Device
    from agent.config import CameraConfig

FRAMES = 30
"""Frames read to measure the rate, as long as time allows."""

MEASURE_S = 2.0
"""A live source is read for at least so long: the rate is that of the later half of the time."""

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
        fps: measured if the source is live, else as it claims; 0 if that is not known.
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
        rate = f"{self.fps:.1f} fps" if self.fps else "rate unknown"
        return (
            f"{self.camera}: {self.width}x{self.height}, {rate}, "
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
            live = is_live(config)
            left_s = max(MEASURE_S, timeout_s - (time.monotonic() - began))
            arrivals = _arrivals(device, left_s, MEASURE_S if live else 0.0)
            # What is not live is read as fast as it goes; what it claims is the better answer.
            fps = steady_fps(arrivals) if live else device.fps
            return ProbeReport(
                name,
                source,
                kind,
                ok=True,
                width=int(picture.shape[1]),
                height=int(picture.shape[0]),
                fps=round(fps, 2) if len(arrivals) > 1 else 0.0,
                codec=device.codec,
                first_frame_ms=round((arrivals[0] - began) * 1e3, 1),
            )
        finally:
            device.close()
    except AgentError as error:
        return ProbeReport(name, source, kind, ok=False, reason=str(error))


def _arrivals(
    device: Device, limit_s: float, least_s: float, clock: Callable[[], float] = time.monotonic
) -> list[float]:
    """When frames came, seconds; the first has come just now. Stops early where frames end."""
    arrivals = [clock()]
    while (len(arrivals) < FRAMES or arrivals[-1] - arrivals[0] < least_s) and arrivals[
        -1
    ] - arrivals[0] < limit_s:
        if device.read() is None:
            break
        arrivals.append(clock())
    return arrivals


def steady_fps(arrivals: Sequence[float]) -> float:
    """Frames a second of a live source, told by when they came.

    Network cameras and drivers hold frames back until somebody reads, and then hand them out as
    fast as they are decoded. So only the later half of the time counts.

    Args:
        arrivals: seconds, rising.

    Returns:
        0 if fewer than two frames came.
    """
    if len(arrivals) < 2:  # noqa: PLR2004 - a rate needs two
        return 0.0
    middle = (arrivals[0] + arrivals[-1]) / 2
    later = [when for when in arrivals if when >= middle]
    if len(later) < 2:  # noqa: PLR2004 - likewise
        later = list(arrivals)
    return (len(later) - 1) / max(later[-1] - later[0], 1e-6)
