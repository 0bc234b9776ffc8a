"""Puts results back into each camera's order, and tells readers what was left out.

Several workers finish out of order. A finished ticket waits until its predecessors are finished
too; no more than one ticket a worker can wait. A ticket that gives no result is completed as well,
and counted in `dropped` of the camera's next result.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.detection import Result
    from agent.interfaces import Sink
    from agent.pipeline.intake import Ticket


@dataclass(slots=True)
class _Line:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: dict[int, tuple[Ticket, Result | None]] = field(default_factory=dict)
    next_order: int = 0
    dropped: int = 0


class Sequencer:
    """One line a camera, in front of the sink."""

    def __init__(self, cameras: Iterable[str], sink: Sink) -> None:
        self._lines = {name: _Line() for name in cameras}
        self._sink = sink

    def add(self, camera: str) -> None:
        """A line for one more camera; one that had a line goes on with it."""
        self._lines.setdefault(camera, _Line())

    def complete(self, ticket: Ticket, result: Result | None) -> None:
        """Finish a ticket; hands the sink every result whose turn has come.

        Args:
            ticket: a ticket taken from the intake; each exactly once.
            result: what is to be published, or None if the frame was dropped after it was taken.
        """
        line = self._lines[ticket.frame.camera]
        with line.lock:
            line.waiting[ticket.order] = (ticket, result)
            while (finished := line.waiting.pop(line.next_order, None)) is not None:
                line.next_order += 1
                done, value = finished
                line.dropped += done.skipped
                if value is None:
                    line.dropped += 1
                else:
                    self._sink.publish(replace(value, dropped=line.dropped))
                    line.dropped = 0
