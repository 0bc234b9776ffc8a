"""A link in memory that acknowledges when a test says so."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Taken:
    topic: str
    payload: bytes
    qos: int
    schema: str
    expiry_s: int | None
    acknowledged: Callable[[], None] | None

    @property
    def json(self) -> dict:
        return json.loads(self.payload)


class AckLink:
    """Implements `agent.interfaces.Broker`.

    Args:
        connected: whether it takes messages at first.
        auto: acknowledge at once.
    """

    def __init__(self, *, connected: bool = True, auto: bool = True) -> None:
        self.connected = connected
        self.auto = auto
        self.taken: list[Taken] = []
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
        assert not retain
        with self._changed:
            if not self.connected:
                return False
            message = Taken(topic, payload, qos, schema, expiry_s, acknowledged)
            self.taken.append(message)
            self._changed.notify_all()
        if self.auto and acknowledged is not None:
            acknowledged()
        return True

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._listeners.append(callback)

    def connect(self) -> None:
        self.connected = True
        for listener in self._listeners:
            listener()

    def wait_for(self, count: int, timeout_s: float = 10.0) -> list[Taken]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.taken) >= count, timeout_s), (
                f"only {len(self.taken)} of {count} messages"
            )
            return list(self.taken)
