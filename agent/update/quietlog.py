"""A log that lasting troubles and floods of bad messages do not fill."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

BURST = 10
"""So many lines of a kind are logged as they come."""

EVERY_S = 60.0
"""After them, one line so often."""

SAME_S = 3600.0
"""What says the same as the line before is not logged again before this."""


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: how many may be logged now, the last one, and what was left out."""

    left: float
    since: float
    text: str = ""
    said: float = 0.0
    unsaid: int = 0


class QuietLog:
    """Logs lines by kind; for one thread.

    Args:
        log: where they go.
        clock: monotonic seconds.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def say(self, level: int, kind: str, text: str, *, trace: bool = False) -> None:
        """Log a line, or count that it was left out.

        Args:
            level: of the log.
            kind: one of a few words of ours.
            text: may come from outside.
            trace: with the traceback of the error that is being handled.
        """
        now = self._clock()
        state = self._kinds.setdefault(kind, _Kind(BURST, now))
        state.left = min(BURST, state.left + (now - state.since) / EVERY_S)
        state.since = now
        if state.left < 1 or (text == state.text and now - state.said < SAME_S):
            state.unsaid += 1
            return
        more = f" ({state.unsaid} lines like it were left out)" if state.unsaid else ""
        self._log.log(level, "updates: %s%s", text, more, exc_info=trace)
        state.left, state.text, state.said, state.unsaid = state.left - 1, text, now, 0
