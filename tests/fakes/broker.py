"""A broker in memory that a test connects, fills and empties."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Published:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    schema: str
    expiry_s: int | None


class FakeBroker:
    """Implements `agent.interfaces.Broker`.

    Args:
        room: messages it takes before it refuses; None: all.
    """

    def __init__(self, *, connected: bool = True, room: int | None = None) -> None:
        self.connected = connected
        self.published: list[Published] = []
        self.refusals = 0
        self._room = room
        self._listeners: list[Callable[[], None]] = []
        self._changed = threading.Condition()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        schema: str = "",
        expiry_s: int | None = None,
        acknowledged: Callable[[], None] | None = None,
    ) -> bool:
        assert acknowledged is None, "tests of acknowledgements use AckLink"
        with self._changed:
            taken = self.connected and self._room != 0
            if taken:
                self._room = None if self._room is None else self._room - 1
                self.published.append(Published(topic, payload, qos, retain, schema, expiry_s))
            else:
                self.refusals += 1
            self._changed.notify_all()
        return taken

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._listeners.append(callback)

    def connect(self, room: int | None = None) -> None:
        """Take messages (again), and tell so."""
        with self._changed:
            self.connected, self._room = True, room
        for listener in self._listeners:
            listener()

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Published]:
        """The messages, once there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.published) >= count, timeout_s), (
                f"only {len(self.published)} of {count} messages"
            )
            return list(self.published)

    def wait_for_refusals(self, count: int, timeout_s: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.refusals >= count, timeout_s)
