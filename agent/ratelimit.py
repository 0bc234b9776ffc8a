"""Lets things through at an even rate: frames of a camera, messages of a publisher. Pure."""

from __future__ import annotations

SLACK = 0.05
"""Part of an interval by which something may come early: cameras' clocks are not ours."""


class RateLimit:
    """Passes no more than `rate_hz` a second, evenly.

    Args:
        rate_hz: how many a second, or None for all.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._interval_s = 0.0 if rate_hz is None else 1.0 / rate_hz
        self._due_s: float | None = None

    def passes(self, time_s: float) -> bool:
        """Whether what happened at `time_s`, of any steady clock, is wanted."""
        if not self._interval_s:
            return True
        if self._due_s is not None and time_s < self._due_s - SLACK * self._interval_s:
            return False
        # On the beat rather than from this one on, or 30 a second limited to 20 become 15; after a
        # gap the beat starts anew, so that nothing is caught up.
        late = self._due_s is None or time_s - self._due_s > self._interval_s
        self._due_s = (time_s if late else self._due_s or time_s) + self._interval_s
        return True
