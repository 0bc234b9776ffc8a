"""Shows one onlooker some of the frames that pass, with what was found in them.

One place, and the newest wins: an onlooker that is slow misses frames and never holds one up. While
nobody looks, it costs the workers one look at an attribute.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.detection import Result
    from agent.frame import Frame


class Tap:
    """The place between the workers of a model and one onlooker.

    Args:
        clock: monotonic seconds.

    Attributes:
        beside: shown every frame as well, if it is not None; must not block.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.beside: Callable[[Frame, Result], None] | None = None
        self._clock = clock
        self._arrived = threading.Condition()
        self._period_s: float | None = None
        self._due_s = 0.0
        self._waiting: tuple[Frame, Result] | None = None

    def open(self, period_s: float) -> None:
        """Begin to look, at most every `period_s` seconds; one onlooker at a time."""
        with self._arrived:
            self._period_s = period_s
            self._due_s = 0.0
            self._waiting = None

    def close(self) -> None:
        """Look no more, and let go of what waits."""
        with self._arrived:
            self._period_s = None
            self._waiting = None
            self._arrived.notify_all()

    def offer(self, frame: Frame, result: Result) -> None:
        """Show a frame and its result, if it is time; never waits for the onlooker."""
        beside = self.beside
        if beside is not None:
            beside(frame, result)
        if self._period() is None:
            return
        with self._arrived:
            now, period_s = self._clock(), self._period()
            if period_s is None or now < self._due_s:
                return
            self._due_s = now + period_s
            self._waiting = (frame, result)
            self._arrived.notify_all()

    def _period(self) -> float | None:
        """Anew each time: another thread may have closed it since the last."""
        return self._period_s

    def take(self, timeout_s: float) -> tuple[Frame, Result] | None:
        """The newest frame that was not taken yet; None if there is none for `timeout_s`."""
        with self._arrived:
            self._arrived.wait_for(
                lambda: self._waiting is not None or self._period_s is None, timeout_s
            )
            found, self._waiting = self._waiting, None
            return found
