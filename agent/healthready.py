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
    """

    name: str
    state: str
    reason: str
    results: int
    result_age_s: float | None

    @property
    def awaited(self) -> bool:
        """It is there as far as is known, and has no result yet."""
        tried = self.state == "connecting" and self.reason
        return not (self.results or tried or self.state in UNREACHABLE)


def awaited(cameras: Sequence[CameraLook]) -> list[str]:
    """Cameras that READY waits for."""
    return [camera.name for camera in cameras if camera.awaited]


def status_line(
    cameras: Sequence[CameraLook], rate_hz: float, broker: str, troubles: Sequence[str]
) -> str:
    """For `systemctl status`.

    Args:
        cameras: all that are enabled.
        rate_hz: results a second.
        broker: empty while there is a connection, or why there is none.
        troubles: of models and updates.
    """
    online = [c for c in cameras if c.state == "online"]
    parts = [f"{len(online)} of {len(cameras)} cameras online, {rate_hz:.1f} results/s"]
    parts.append("broker connected" if not broker else f"no broker: {broker}")
    away = [c for c in cameras if c.state in ("connecting", "stalled", "failed")]
    parts += [f"{c.name}: {c.reason or c.state}" for c in away[:MAX_NAMED]]
    if len(away) > MAX_NAMED:
        parts.append(f"{len(away) - MAX_NAMED} more cameras away")
    return "; ".join([*parts, *troubles])
