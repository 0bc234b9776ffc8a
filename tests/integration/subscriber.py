"""An independent reader: collects what a broker delivers, over any number of broker lives."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_S = 0.01
STEP_S = 0.05


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str | None
    schema: str | None
    expiry_s: int | None

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Subscriber:
    """Subscribes to one filter; reconnects at once and for ever.

    Args:
        port: on loopback.
        topic_filter: what to read.
        qos: of the subscription.
    """

    def __init__(self, port: int, topic_filter: str, qos: int = 0) -> None:
        self.messages: list[Received] = []
        self._port = port
        self._filter = topic_filter
        self._qos = qos
        self._changed = threading.Condition()
        self._subscribed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscriber", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_subscribed()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._thread.join(10)

    def wait_subscribed(self, timeout_s: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._subscribed, timeout_s)

    def wait_for(
        self, done: Callable[[list[Received]], object], timeout_s: float = 10.0
    ) -> list[Received]:
        """The messages, once `done(messages)` is true."""
        with self._changed:
            assert self._changed.wait_for(lambda: done(self.messages), timeout_s), (
                f"{len(self.messages)} messages, the last: {self.messages[-3:]}"
            )
            return list(self.messages)

    def wait_count(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        return self.wait_for(lambda messages: len(messages) >= count, timeout_s)

    def on(self, topic: str) -> list[Received]:
        with self._changed:
            return [m for m in self.messages if m.topic == topic]

    def _run(self) -> None:
        while not self._closing.is_set():
            client = paho.Client(
                CallbackAPIVersion.VERSION2,
                protocol=MQTTProtocolVersion.MQTTv5,
                reconnect_on_failure=False,
            )
            client.on_connect = lambda c, *_: c.subscribe(self._filter, self._qos)
            client.on_subscribe = lambda *_: self._set_subscribed(True)
            client.on_message = self._on_message
            with contextlib.suppress(OSError):
                client.connect("127.0.0.1", self._port, 60)
                while not self._closing.is_set():
                    if client.loop(STEP_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                        break
                client.disconnect()
            self._set_subscribed(False)
            self._closing.wait(RETRY_S)

    def _set_subscribed(self, value: bool) -> None:
        with self._changed:
            self._subscribed = value
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        user = dict(getattr(properties, "UserProperty", []))
        received = Received(
            message.topic,
            bytes(message.payload),
            message.qos,
            message.retain,
            getattr(properties, "ContentType", None),
            user.get("schema"),
            getattr(properties, "MessageExpiryInterval", None),
        )
        with self._changed:
            self.messages.append(received)
            self._changed.notify_all()


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something that tells nobody when it happens."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
