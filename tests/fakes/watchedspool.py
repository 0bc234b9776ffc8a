"""A spool that tells a test when its thread has done something."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from agent.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable


class WatchedSpool(Spool):
    """An `agent.spool.Spool`; `until` waits without polling."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turned = threading.Condition()

    def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait for something that a turn of the spool brings about."""
        with self._turned:
            assert self._turned.wait_for(condition, timeout_s), f"not in time: {self.counters()}"

    def _turn(self) -> None:
        try:
            super()._turn()
        finally:
            with self._turned:
                self._turned.notify_all()
