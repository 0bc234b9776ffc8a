"""Whether the agent does its work, and one line that says how. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

UNREACHABLE = ("stalled", "disabled", "ended", "failed")
MAX_NAMED = 3
"""Cameras named in one line."""


@dataclass(frozen=True, slots=True)
class CameraLook:
    """How a camera is at one look.

    Attributes:
        name: of the configuration.
        state: see `agent.capture.camera.CameraStatus`.
        reason: likewise.
        results: frames analysed since the start.
        result_age_s: seconds since the last of them; None without one.
        frame_age_s: seconds since the last frame came from the device; None without one.
    """

    name: str
    state: str
    reason: str
    results: int
    result_age_s: float | None
    frame_age_s: float | None = None

    @property
    def awaited(self) -> bool:
        """It is there as far as is known, and has no result yet."""
        tried = self.state == "connecting" and self.reason
        return not (self.results or tried or self.state in UNREACHABLE)


def awaited(cameras: Sequence[CameraLook]) -> list[str]:
    """Cameras that READY waits for."""
    return [camera.name for camera in cameras if camera.awaited]


def starting_line(cameras: Sequence[CameraLook]) -> str:
    """What READY waits for, for `systemctl status`."""
    missing = awaited(cameras)
    if not missing:
        return "starting: looking at what there is"
    return f"starting: waiting for the first result of {_several(missing)}"


def status_line(
    cameras: Sequence[CameraLook],
    rate_hz: float,
    broker: str,
    troubles: Sequence[str],
    updating: Sequence[str] = (),
) -> str:
    """What is served, then what is wrong, then what is under way; for `systemctl status`.

    Args:
        cameras: all that are enabled.
        rate_hz: results a second.
        broker: empty while there is a connection, or why there is none.
        troubles: of stages, models and updates.
        updating: slots and what their update is at.
    """
    online = sum(camera.state == "online" for camera in cameras)
    if not cameras:
        line = "serving no camera"
    elif online == len(cameras):
        line = f"serving {online} camera{'s' * (online > 1)} at {rate_hz:.1f} fps"
    else:
        line = f"serving {online} of {len(cameras)} cameras at {rate_hz:.1f} fps"
    away = [c for c in cameras if c.state in ("connecting", "stalled", "failed")]
    why = list(troubles)
    why += [f"no broker: {broker}"] if broker else []
    why += [f"{c.name}: {c.reason or c.state}" for c in away[:MAX_NAMED]]
    if len(away) > MAX_NAMED:
        why.append(f"{len(away) - MAX_NAMED} more cameras away")
    ended = sum(camera.state == "ended" for camera in cameras)
    parts = [line]
    parts += [f"degraded: {', '.join(why)}"] if why else []
    parts += [f"{ended} at {'their' if ended > 1 else 'its'} end"] if ended else []
    parts += [f"updating {', '.join(updating)}"] if updating else []
    return "; ".join(parts)


def _several(names: Sequence[str]) -> str:
    """Some of them, and how many more."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
