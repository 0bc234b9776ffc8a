"""How fast something comes, of late. Pure."""

from __future__ import annotations

from collections import deque

SPAN_S = 10.0
"""The time that "of late" is."""

NOTES = 32
"""Values that are remembered at the most."""


class Rate:
    """Bytes a second over the last seconds.

    Args:
        now: monotonic seconds, when nothing had come.
    """

    def __init__(self, now: float) -> None:
        self._notes: deque[tuple[float, int]] = deque([(now, 0)], NOTES)

    def note(self, now: float, total: int) -> float:
        """Take how much has come until now; the rate of late, bytes a second."""
        while len(self._notes) > 1 and now - self._notes[0][0] > SPAN_S:
            self._notes.popleft()
        at, before = self._notes[0]
        self._notes.append((now, total))
        return (total - before) / (now - at) if now > at else 0.0
