"""What has arrived on the bulk connection and was not looked at yet: the newest of each topic.

As only topics that were asked for come here, no more than a window's messages wait, however often
a broker repeats itself; a limit in bytes stands behind that.
"""

from __future__ import annotations

import threading

OVERHEAD_BYTES = 512
"""What a message takes beside its payload, roughly: so a flood of empty ones is bounded too."""


class FetchQueue:
    """Filled by the MQTT thread, which never waits; emptied by the fetching one.

    Args:
        max_bytes: what comes when so much waits is dropped.

    Attributes:
        dropped: messages that nobody looked at: a newer one of their topic came, or there was no
            room.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiting: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def put(self, topic: str, payload: bytes) -> None:
        """Take a message, or drop it."""
        with self._changed:
            before = self._waiting.get(topic)
            size = len(payload) + OVERHEAD_BYTES
            if before is not None:
                self.dropped += 1
                size -= len(before) + OVERHEAD_BYTES
            elif self._bytes + size > self._max_bytes:
                self.dropped += 1
                return
            self._bytes += size
            self._waiting[topic] = payload
            self._changed.notify()

    def take(self, most: int, timeout_s: float) -> list[tuple[str, bytes]]:
        """Wait for messages.

        Returns:
            Topics and payloads, the oldest topic first, at most so many; empty if none came in
            time.
        """
        with self._changed:
            if not self._waiting:
                self._changed.wait(timeout_s)
            topics = list(self._waiting)[:most]
            taken = [(topic, self._waiting.pop(topic)) for topic in topics]
            self._bytes -= sum(len(payload) + OVERHEAD_BYTES for _, payload in taken)
            return taken
