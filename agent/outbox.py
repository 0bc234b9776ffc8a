"""Where results wait for the broker: bounded in number and bytes, the newest kept.

Other implementations of `Outbox` may keep what waits on disk.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent.detection import Result

RESULT_BYTES = 600
"""Memory of a result without objects: arrays, times and references."""

OBJECT_BYTES = 40
"""Memory of one object: box, score, class."""


class Outbox(Protocol):
    """Results in the order in which they came."""

    def put(self, result: Result) -> list[Result]:
        """Add one; never blocks.

        Returns:
            The results that had to give way, oldest first.
        """

    def take(self, timeout_s: float) -> Result | None:
        """Remove and return the oldest result; None if none came within `timeout_s`."""

    def restore(self, result: Result) -> list[Result]:
        """Put back what was taken and could not be sent.

        Returns:
            As `put`.
        """

    def wake(self) -> None:
        """Make a waiting `take` return at once."""

    def __len__(self) -> int: ...


class MemoryOutbox:
    """An outbox in memory.

    Args:
        max_messages: results kept.
        max_bytes: memory kept, estimated.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[Result] = deque()
        self._bytes = 0
        self._woken = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, result: Result) -> list[Result]:
        """See `Outbox`."""
        with self._changed:
            self._waiting.append(result)
            self._bytes += size_of(result)
            self._changed.notify()
            return self._make_room()

    def restore(self, result: Result) -> list[Result]:
        """See `Outbox`."""
        with self._changed:
            self._waiting.appendleft(result)
            self._bytes += size_of(result)
            return self._make_room()

    def take(self, timeout_s: float) -> Result | None:
        """See `Outbox`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._woken, timeout_s)
            self._woken = False
            return self._remove() if self._waiting else None

    def wake(self) -> None:
        """See `Outbox`."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _make_room(self) -> list[Result]:
        dropped: list[Result] = []
        while len(self._waiting) > self._max_messages or (
            self._bytes > self._max_bytes and len(self._waiting) > 1
        ):
            dropped.append(self._remove())
        return dropped

    def _remove(self) -> Result:
        result = self._waiting.popleft()
        self._bytes -= size_of(result)
        return result


def size_of(result: Result) -> int:
    """Bytes of memory that a result holds, estimated."""
    found = result.detections
    size = RESULT_BYTES + OBJECT_BYTES * len(found)
    for array in (found.keypoints, found.rotated):
        size += 0 if array is None else array.nbytes
    return size + sum(mask.bits.nbytes for mask in found.masks or ())
