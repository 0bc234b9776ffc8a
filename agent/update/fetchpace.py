"""How long a transfer rests so that cameras come first. Pure.

A bundle may take minutes; a frame may not. While the rest of the process works (it decodes, it
infers), a transfer takes a small share of one core; where nothing else works, all it can get. What
is looked at is processor time, which a slow network does not change: a transfer that the network
slows down never rests. A lower priority of the thread would be no help: it holds the interpreter's
lock while it waits for a core, and frames would wait for it.
"""

from __future__ import annotations

from typing import NamedTuple

SHARE = 0.1
"""Of one core, that a transfer may take beside other work."""

BUSY_SHARE = 0.05
"""Of one core: who takes more is at work."""

PERIOD_S = 0.25
"""Time over which it is judged whether others work: several frames."""

MAX_REST_S = 0.1
"""Longest rest at once, so that a cancelled transfer ends soon."""


class Spent(NamedTuple):
    """Seconds, since any time.

    Attributes:
        wall: by a clock.
        ours: processor time of the transfer's threads.
        all: processor time of the process.
    """

    wall: float
    ours: float
    all: float


class Pace:
    """Of the transfers of one process, one after the other.

    Args:
        now: what was spent before the first.
    """

    def __init__(self, now: Spent) -> None:
        self._busy = False
        self._owed = 0.0
        self._since = now

    def rest(self, now: Spent) -> float:
        """How long to rest now, in seconds; to be asked after each few blocks."""
        wall, ours, everything = (max(b - a, 0.0) for a, b in zip(self._since, now, strict=True))
        debt = max(self._owed + ours / SHARE - wall, 0.0)
        if wall >= PERIOD_S:
            busy = (everything - ours) / wall > BUSY_SHARE
            # What was taken while nobody else was at work is not owed.
            debt = self._owed = debt if busy and self._busy else 0.0
            self._busy, self._since = busy, now
        return min(debt, MAX_REST_S) if self._busy else 0.0

    def begin(self, now: Spent) -> None:
        """A transfer begins: whether others work is judged by the time before it."""
        self.rest(now)
        self._owed, self._since = 0.0, now
