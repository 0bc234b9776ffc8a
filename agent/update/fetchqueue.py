"""What has arrived on the bulk connection and was not looked at yet: bounded in bytes."""

from __future__ import annotations

import threading
from collections import deque

OVERHEAD_BYTES = 512
"""What a message takes beside its payload, roughly: so a flood of empty ones is bounded too."""


class FetchQueue:
    """Filled by the MQTT thread, which never waits; emptied by the fetching one.

    Args:
        max_bytes: what comes when so much waits is dropped.

    Attributes:
        dropped: messages that were not taken.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._changed = threading.Condition()

    def put(self, topic: str, payload: bytes) -> None:
        """Take a message, or drop it."""
        size = len(payload) + OVERHEAD_BYTES
        with self._changed:
            if self._bytes + size > self._max_bytes:
                self.dropped += 1
                return
            self._bytes += size
            self._waiting.append((topic, payload))
            self._changed.notify()

    def take(self, most: int, timeout_s: float) -> list[tuple[str, bytes]]:
        """Wait for messages.

        Returns:
            Topics and payloads, the oldest first, at most so many; empty if none came in time.
        """
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout_s)
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._bytes -= sum(len(payload) + OVERHEAD_BYTES for _, payload in taken)
            return taken
