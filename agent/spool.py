"""Keeps events until the broker has them, and sends them in order."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from agent.wire.events import event_body, event_head
from agent.wire.schema import EVENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.wire.events import Event
    from agent.wire.topics import Topics

MAX_MEMORY_MESSAGES = 2000


class AcknowledgingBroker(Protocol):
    """What the spool needs of `agent.mqttlink.Link`."""

    @property
    def connected(self) -> bool:
        """True while a session with the broker is up."""

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
        """Take one message without waiting; False if it was not taken."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when messages are taken again."""


class Spool:
    """Takes events from any thread; never blocks on a disk or a network.

    Args:
        broker: where messages go.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
    """

    def __init__(self, broker: AcknowledgingBroker, topics: Topics, device: str, boot: str) -> None:
        self._broker = broker
        self._topics = topics
        self._device = device
        self._boot = boot
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, bool, bytes]] = deque(maxlen=MAX_MEMORY_MESSAGES)
        self._seq = 0
        broker.on_ready(self._send)

    def take_event(self, event: Event) -> None:
        """Take one event; returns at once."""
        body = event_body(event)
        with self._lock:
            self._waiting.append((self._seq, not self._broker.connected, body))
            self._seq += 1
        self._send()

    def _send(self) -> None:
        with self._lock:
            while self._waiting:
                seq, replay, body = self._waiting[0]
                head = event_head(self._device, self._boot, seq, replay=replay)
                if not self._broker.publish(self._topics.events, head + body, qos=1, schema=EVENT):
                    return
                self._waiting.popleft()
