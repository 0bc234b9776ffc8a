"""The controller's link to the broker: many messages out in order, few of them in memory."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.errors import BrokerError
from agent.mqttlink import Link

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from agent.config import MqttConfig

PATIENCE_S = 60.0
"""After so long without the broker taking a message, a command gives up."""

LOOK_S = 0.5
"""How often it is seen whether there is a connection at all."""

CLOSE_S = 5.0

INBOX_MESSAGES = 4096
"""Messages that may wait to be looked at; a flood beyond is dropped and counted."""

SENDER_MESSAGES = 64
"""Messages of one device that may wait."""

MAX_INBOX_MESSAGE_BYTES = 128 * 2**10
"""The largest message that the controller reads: a signed report."""

FAULTS = ("refused", "too_large", "given_up")
"""What became of messages that the broker does not hold."""


class Outlet:
    """Connects, publishes and hears; for one command.

    Args:
        config: the broker, with the controller's certificate.
        patience_s: longest wait for the broker, seconds.

    Raises:
        BrokerError: (on entering) there is no connection.
    """

    def __init__(self, config: MqttConfig, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._room = threading.Event()
        # A name of its own: two commands at once must not end each other's connections.
        self._link = Link(config, f"vigia-fleet-{secrets.token_hex(4)}")
        self._link.on_ready(self._room.set)

    def __enter__(self) -> Self:
        self._link.start()
        end = time.monotonic() + self._patience_s
        while not self._link.wait_connected(LOOK_S):
            # The agent tries for ever; whoever types a command wants to know at once.
            if self._link.reason or time.monotonic() >= end:
                reason = self._link.reason or f"no connection within {self._patience_s:g} s"
                self._link.close(0)
                raise BrokerError(reason)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._link.close(CLOSE_S if error is None else 0)

    @property
    def connected(self) -> bool:
        """True while a session with the broker is up."""
        return self._link.connected

    def hear(self, topic_filters: tuple[str, ...], inbox: Inbox) -> None:
        """Have the messages of these topics put into `inbox`."""
        for topic_filter in topic_filters:
            self._link.subscribe(topic_filter, inbox.put, qos=1)

    def send(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        schema: str = "",
        expiry_s: int | None = None,
    ) -> None:
        """Give a QoS 1 message to the link, waiting as long as it has too many.

        Raises:
            BrokerError: the broker takes nothing any more.
        """
        end = time.monotonic() + self._patience_s
        while True:
            self._room.clear()
            if self._link.publish(
                topic, payload, qos=1, retain=retain, schema=schema, expiry_s=expiry_s
            ):
                return
            left = end - time.monotonic()
            if left <= 0:
                raise BrokerError(
                    self._link.reason or f"the broker has taken nothing for {self._patience_s:g} s"
                )
            self._room.wait(min(left, LOOK_S))

    def settle(self) -> None:
        """Wait until the broker has acknowledged everything that was sent.

        Raises:
            BrokerError: it does not, or refused some of it.
        """
        before = self._acknowledged()
        while not self._link.flush(self._patience_s):
            if self._acknowledged() == before:
                raise BrokerError(
                    self._link.reason
                    or f"the broker has acknowledged nothing for {self._patience_s:g} s"
                )
            before = self._acknowledged()
        counts = self._link.counters()
        faults = {name: counts[name] for name in FAULTS if counts[name]}
        if faults:
            told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in faults.items())
            raise BrokerError(
                f"the broker does not hold everything it was sent ({told}); see its access list, "
                "and its limits for the size and number of messages"
            )

    def _acknowledged(self) -> object:
        return self._link.counters()["acknowledged"]


class Inbox:
    """Messages that the link's thread heard, for another thread; bounded, whatever comes.

    Nobody can fill it alone: what a device sends faster than it is looked at is dropped, so that
    the others' reports get in.

    Args:
        prefix: first levels of the topics; the level that follows says who sent a message.
        room: messages that may wait.

    Attributes:
        dropped: by reason, what never got in.
    """

    def __init__(self, prefix: str = "", room: int = INBOX_MESSAGES) -> None:
        self._start = f"{prefix}/" if prefix else ""
        self._room = room
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._senders: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.dropped: Counter[str] = Counter()

    def put(self, topic: str, payload: bytes) -> None:
        """Take a message, or count it."""
        sender = self._sender(topic)
        with self._changed:
            if len(payload) > MAX_INBOX_MESSAGE_BYTES:
                self.dropped["too large"] += 1
            elif self._senders[sender] >= SENDER_MESSAGES:
                self.dropped["too many of one device"] += 1
            elif len(self._waiting) >= self._room:
                self.dropped["too many"] += 1
            else:
                self._senders[sender] += 1
                self._waiting.append((topic, payload))
                self._changed.notify_all()

    def take(self, timeout_s: float) -> list[tuple[str, bytes]]:
        """Wait for a message; then it and all others that are there."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, max(timeout_s, 0.0))
            messages = list(self._waiting)
            self._waiting.clear()
            self._senders.clear()
            return messages

    def _sender(self, topic: str) -> str:
        return topic.removeprefix(self._start).partition("/")[0]
