"""A sink that keeps what it is given and lets a test wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.detection import Result


class ListSink:
    """Implements `agent.interfaces.Sink`."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._changed = threading.Condition()

    def publish(self, result: Result) -> None:
        with self._changed:
            self.results.append(result)
            self._changed.notify_all()

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Result]:
        """The results, once there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.results) >= count, timeout_s), (
                f"only {len(self.results)} of {count} results"
            )
            return list(self.results)

    def of(self, camera: str) -> list[Result]:
        return [r for r in self.results if r.camera == camera]
