"""One message that waits, and the order in which messages are sent and given up. Pure.

A key is a priority and, below it, a number that only grows. So the order of keys is the order of
sending: events before detections, each as they were taken. What must go goes from the lowest
priority first, there the oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

EVENT = 0
DETECTION = 1
PRIORITIES = (EVENT, DETECTION)
"""The first is sent first and given up last."""

NUMBER_BITS = 48
"""A thousand messages a second for nine thousand years."""

OVERHEAD_BYTES = 64
"""Counted for each message beside its body."""


def first_key(priority: int) -> int:
    """The smallest key of a priority."""
    return priority << NUMBER_BITS


@dataclass(frozen=True, slots=True)
class Item:
    """A message but for its head.

    Attributes:
        key: its place; see the module.
        boot: id of the run of the agent in which it was made.
        stream: the camera of a detection; empty for events.
        seq: number in its stream and run.
        dropped: frames lost before it.
        replay: the broker was away when it was made.
        at: when it was taken, seconds since the epoch.
        body: what its head goes before.
        taken: when it was taken by a clock that never jumps; 0 for what was read from the disk.
    """

    key: int
    boot: str
    stream: str
    seq: int
    dropped: int
    replay: bool
    at: float
    body: bytes
    taken: float = field(default=0.0, compare=False)

    @property
    def priority(self) -> int:
        """`EVENT` or `DETECTION`."""
        return self.key >> NUMBER_BITS

    @property
    def number(self) -> int:
        """Its place among all that was taken."""
        return self.key & (first_key(1) - 1)

    @property
    def size_bytes(self) -> int:
        """What it counts for."""
        return len(self.body) + OVERHEAD_BYTES


class Memory:
    """Items that are on no disk yet, by key; bounded.

    Args:
        max_messages: items kept at the most.
        max_bytes: bytes kept at the most.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._items: dict[int, OrderedDict[int, Item]] = {p: OrderedDict() for p in PRIORITIES}
        self._bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    @property
    def size_bytes(self) -> int:
        """Bytes kept."""
        return self._bytes

    def put(self, item: Item) -> list[Item]:
        """Add the newest.

        Returns:
            What had to go for it; possibly itself.
        """
        self._items[item.priority][item.key] = item
        self._bytes += item.size_bytes
        out = []
        while len(self) > self._max_messages or self._bytes > self._max_bytes:
            out.append(self._pop_least())
        return out

    def first(self, priority: int) -> Item | None:
        """The oldest of a priority, which stays."""
        return next(iter(self._items[priority].values()), None)

    def pop(self, key: int) -> Item | None:
        """Take one out; None if it is not there."""
        item = self._items[key >> NUMBER_BITS].pop(key, None)
        if item is not None:
            self._bytes -= item.size_bytes
        return item

    def all(self) -> list[Item]:
        """Everything, in order."""
        return [item for p in PRIORITIES for item in self._items[p].values()]

    def shift(self, numbers: int) -> None:
        """Give everything higher numbers."""
        for priority, items in self._items.items():
            moved = [replace(item, key=item.key + numbers) for item in items.values()]
            self._items[priority] = OrderedDict((item.key, item) for item in moved)

    def _pop_least(self) -> Item:
        items = next(self._items[p] for p in reversed(PRIORITIES) if self._items[p])
        _, item = items.popitem(last=False)
        self._bytes -= item.size_bytes
        return item
