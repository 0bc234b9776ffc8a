"""Whether a stage makes progress: who works marks when it began, who watches reads how old that is.

Nothing is locked: a mark is one assignment, so that it costs the road of a frame nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Activity:
    """What one thread does at present; a context manager around it, or `mark` in a loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def mark(self, extra_s: float = 0.0) -> None:
        """Something new begins here.

        Args:
            extra_s: it has a deadline of its own after so long; its age counts from then.
        """
        self._since = self._clock() + extra_s

    def rest(self) -> None:
        """There is nothing to do."""
        self._since = None

    def __enter__(self) -> None:
        """Something begins."""
        self.mark()

    def __exit__(self, *_error: object) -> None:
        """It has ended."""
        self.rest()

    @property
    def age_s(self) -> float | None:
        """Seconds since the last mark; None while there is nothing to do."""
        # Read once: its thread changes it.
        since = self._since
        return None if since is None else max(0.0, self._clock() - since)


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is at one look.

    Attributes:
        name: for people and programs.
        age_s: seconds that what it does has taken; None while it rests.
        limit_s: more is a stall.
        renew: has it begun anew without the rest of the process; says whether that went.
        essential: its stall, if it lasts, ends the process, and meanwhile keeps the service
            manager's watchdog from being fed.
    """

    name: str
    age_s: float | None
    limit_s: float
    renew: Callable[[], bool] | None = None
    essential: bool = True
