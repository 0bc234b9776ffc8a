"""Keeps messages while they cannot be sent: bounded, the newest win, drops are counted.

`Outbox` is the seam for a store that survives a restart; `MemoryOutbox` is the one in memory.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Draft:
    """A message but for what is known only when it is sent.

    Attributes:
        camera: whose message.
        body: the encoded part (`agent.wire.messages.detection_body`).
        dropped: frames lost before this one.
        replay: the broker was away when it was made.
    """

    camera: str
    body: bytes
    dropped: int
    replay: bool


class Outbox(Protocol):
    """Drafts in order; used under its owner's lock."""

    def __len__(self) -> int:
        """How many drafts wait."""

    @property
    def size_bytes(self) -> int:
        """How many bytes they take."""

    def put(self, draft: Draft) -> list[Draft]:
        """Add the newest.

        Returns:
            What had to be dropped for it, oldest first; possibly itself.
        """

    def first(self) -> Draft | None:
        """The oldest, which stays."""

    def remove_first(self) -> None:
        """Take the oldest out, once it was handed on."""


class MemoryOutbox:
    """An `Outbox` that is lost with the process.

    Args:
        max_messages: drafts kept at the most.
        max_bytes: bytes of their bodies kept at the most.

    Attributes:
        dropped: drafts dropped since the start, by camera.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.dropped: Counter[str] = Counter()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._drafts: deque[Draft] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._drafts)

    @property
    def size_bytes(self) -> int:
        """Bytes of the bodies kept."""
        return self._bytes

    def put(self, draft: Draft) -> list[Draft]:
        """Add the newest; see `Outbox.put`."""
        self._drafts.append(draft)
        self._bytes += len(draft.body)
        out: list[Draft] = []
        while len(self._drafts) > self._max_messages or self._bytes > self._max_bytes:
            oldest = self._drafts.popleft()
            self._bytes -= len(oldest.body)
            self.dropped[oldest.camera] += 1
            out.append(oldest)
        return out

    def first(self) -> Draft | None:
        """The oldest, which stays."""
        return self._drafts[0] if self._drafts else None

    def remove_first(self) -> None:
        """Take the oldest out."""
        self._bytes -= len(self._drafts.popleft().body)
