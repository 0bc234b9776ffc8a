"""The connection to the broker. The only module that imports the MQTT library.

One thread keeps the connection: it connects, waits for the end of the session, waits a jittered
delay, and connects again, for ever. The library's own thread moves bytes. Nothing here makes a
caller wait for the network, except `flush` and `close`, which have a deadline.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.backoff import Backoff
from agent.configfile import reveal
from agent.errors import BrokerError
from agent.tls import make_context, reason_of
from agent.wire import messages
from agent.wire.topics import Topics

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from agent.config import MqttConfig

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 100
"""Messages handed over and not yet acknowledged (QoS 1) or written (QoS 0)."""

MAX_RETAINED = 1000
"""State messages kept for the next connection: one for each camera and model, and a few."""

STABLE_S = 10.0
"""A session that lasted this long was a good one: the back-off starts over."""

SESSION_LOOK_S = 1.0
"""How often the keeping thread looks whether the library's thread still lives."""

CONTENT_TYPE = "application/json"

UNSUPPORTED_VERSION = 132
"""Reason code of MQTT 5 for a protocol version that the broker does not speak; the library maps
MQTT 3.1.1's code 1 to it too."""

TAKEN_OVER = 142
"""Reason code: another client connected with our client id."""

REFUSALS = {
    134: "wrong user name or password; fix mqtt.username and mqtt.password",
    135: "not authorized; the broker wants other credentials or a client certificate",
    133: "the client id is refused; change device.id",
    138: "this client is banned by the broker",
}
"""CONNACK reason codes (MQTT 5, section 3.2.2.2) in words."""


class MqttClient:
    """A session with the broker, for as long as the agent runs.

    Args:
        config: `mqtt` section.
        device: device id; the client id is made of it.
        boot: id of this run.
        watcher: True for a program that only reads: no will, no birth, a client id of its own.
    """

    def __init__(
        self, config: MqttConfig, device: str, boot: str, *, watcher: bool = False
    ) -> None:
        self._config = config
        self._device = device
        self._boot = boot
        self._watcher = watcher
        self._topics = Topics(config.prefix, device)
        self._tls: ssl.SSLContext | None = make_context(config.tls) if config.tls else None
        self._version = paho.MQTTv311 if config.protocol == "3.1.1" else paho.MQTTv5
        self._backoff = Backoff(config.reconnect_initial_s, config.reconnect_max_s)
        self._lock = threading.Lock()
        self._retained: dict[str, tuple[bytes, str]] = {}
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._in_flight: deque[tuple[paho.MQTTMessageInfo, int]] = deque()
        self._aliases: dict[str, int] = {}
        self._max_aliases = 0
        self._state, self._state_reason = "online", ""
        self._up = threading.Event()
        self._ended = threading.Event()
        self._progress = threading.Event()
        self._stopping = threading.Event()
        self._refused_version = False
        self._thread: threading.Thread | None = None
        self._client = self._make()
        self.last_error = ""
        self.connects = 0
        self.answered = False

    # -- what others use ----------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True while a session is up."""
        return self._up.is_set()

    @property
    def protocol(self) -> str:
        """Version of MQTT that is spoken: "5" or "3.1.1"."""
        return "5" if self._version == paho.MQTTv5 else "3.1.1"

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread = threading.Thread(target=self._keep, name="mqtt", daemon=True)
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for a session."""
        return self._up.wait(timeout_s)

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool = False, schema: str = ""
    ) -> bool:
        """See `agent.interfaces.Broker`."""
        with self._lock:
            if not self._up.is_set() or self._count_in_flight() >= MAX_IN_FLIGHT:
                return False
            properties = self._properties(schema, None if retain else self._expiry())
            name = self._aliased(topic, properties) if properties and not (qos or retain) else topic
            info = self._client.publish(name, payload, qos, retain, properties)
            if info.rc != paho.MQTT_ERR_SUCCESS:
                return False
            self._in_flight.append((info, qos))
            return True

    def set_retained(self, topic: str, payload: bytes, schema: str = "") -> None:
        """Publish a state now, or as soon as a session is up, and again in every new session."""
        with self._lock:
            self._retained.pop(topic, None)
            self._retained[topic] = (payload, schema)
            while len(self._retained) > MAX_RETAINED:
                del self._retained[next(iter(self._retained))]
        self.publish(topic, payload, qos=1, retain=True, schema=schema)

    def set_state(self, state: str, reason: str = "") -> None:
        """Publish the device's state: "online", "degraded", "stopping" or "offline"."""
        self._state, self._state_reason = state, reason
        self._publish_state()

    def subscribe(self, topic_filter: str, handler: Callable[[str, bytes], None]) -> None:
        """Have `handler(topic, payload)` called, in the library's thread, for each message."""
        with self._lock:
            self._handlers[topic_filter] = handler
            if self._up.is_set():
                self._client.subscribe(topic_filter, qos=1)

    def wait_progress(self, timeout_s: float) -> None:
        """Wait until something was acknowledged or a session began or ended."""
        self._progress.wait(timeout_s)
        self._progress.clear()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over is acknowledged or, with QoS 0, written."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if not self._count_in_flight():
                    return True
            left = deadline - time.monotonic()
            if left <= 0 or not self._up.is_set():
                return False
            self.wait_progress(left)

    def close(self, timeout_s: float) -> None:
        """Say goodbye and disconnect, in `timeout_s` at the most."""
        if not self._watcher:
            self.set_state("offline")
        self.flush(timeout_s)
        self._stopping.set()
        self._client.disconnect()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- keeping the connection -----------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            if self._connect():
                self._client.loop_start()
                while not self._ended.wait(SESSION_LOOK_S):
                    pass
                self._client.loop_stop()
                self._up.clear()
                self._progress.set()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STABLE_S:
                self._backoff.reset()
            self._fall_back()
            self._stopping.wait(self._backoff.next_delay())

    def _connect(self) -> bool:
        self._ended.clear()
        self.answered = False
        host, port = self._config.host, self._config.effective_port
        try:
            self._client.connect(host, port, self._config.keepalive_s)
        except OSError as error:
            self._failed(reason_of(error, host, port))
            return False
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            # A detection is a small message that should not wait for the next.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def _fall_back(self) -> None:
        """Speak MQTT 3.1.1 to a broker that does not understand 5."""
        if (
            self._config.protocol == "auto"
            and self._version == paho.MQTTv5
            and self._refused_version
        ):
            log.info("the broker does not speak MQTT 5; going on with 3.1.1")
            self._version = paho.MQTTv311
            with self._lock:
                self._in_flight.clear()
                self._client = self._make()

    def _make(self) -> paho.Client:
        self._refused_version = False
        config = self._config
        name = f"vigia-{self._device}" + (f"-watch-{self._boot}" if self._watcher else "")
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            protocol=self._version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = config.connect_timeout_s
        client.max_inflight_messages_set(MAX_IN_FLIGHT)
        if config.username is not None:
            client.username_pw_set(config.username, reveal(config.password))
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if not self._watcher:
            client.will_set(
                self._topics.status,
                self._status("offline"),
                qos=1,
                retain=True,
                properties=self._properties(messages.STATUS, None, PacketTypes.WILLMESSAGE),
            )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # -- called by the library ------------------------------------------------------------------

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, code: Any, properties: Any
    ) -> None:
        self.answered = True
        if code.is_failure:
            self._refused_version = code.value == UNSUPPORTED_VERSION
            self._failed(REFUSALS.get(code.value, f"the broker refuses: {code}"))
            return
        self.last_error = ""
        self.connects += 1
        log.info("connected to %s, MQTT %s", self._config.host, self.protocol)
        with self._lock:
            # Unacknowledged messages are sent again now; unwritten ones went with the last session.
            self._in_flight = deque(item for item in self._in_flight if item[1])
            self._aliases.clear()
            self._max_aliases = int(getattr(properties, "TopicAliasMaximum", 0) or 0)
            for topic_filter in self._handlers:
                client.subscribe(topic_filter, qos=1)
            retained = list(self._retained.items())
            self._up.set()
        self._progress.set()
        self._publish_state()
        for topic, (payload, schema) in retained:
            self.publish(topic, payload, qos=1, retain=True, schema=schema)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: Any, _properties: Any
    ) -> None:
        with self._lock:
            self._up.clear()
        if not self._stopping.is_set():
            if code.value == TAKEN_OVER:
                self._failed(
                    f"another client connected as {self._device!r}; device ids must differ"
                )
            elif self.answered and not self.last_error:
                self._failed(f"the connection was lost: {code}")
            elif not self.last_error or not self.answered:
                # Old brokers close the connection when they see a version they do not know.
                self._refused_version = True
                self._failed(
                    "the broker closed the connection without an answer; it may want TLS or a "
                    "client certificate"
                )
        self._ended.set()
        self._progress.set()

    def _on_publish(self, *_: Any) -> None:
        self._progress.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        for topic_filter, handler in list(self._handlers.items()):
            if paho.topic_matches_sub(topic_filter, message.topic):
                handler(message.topic, bytes(message.payload))

    # -- small parts ----------------------------------------------------------------------------

    def _failed(self, reason: str) -> None:
        if reason != self.last_error:
            log.warning("broker: %s", reason)
        self.last_error = reason

    def _publish_state(self) -> None:
        if not self._watcher:
            payload = self._status(self._state, self._state_reason)
            self.publish(self._topics.status, payload, qos=1, retain=True, schema=messages.STATUS)

    def _status(self, state: str, reason: str = "") -> bytes:
        return messages.encode_status(self._device, self._boot, time.time(), state, reason)

    def _count_in_flight(self) -> int:
        while self._in_flight and self._in_flight[0][0].is_published():
            self._in_flight.popleft()
        return len(self._in_flight)

    def _expiry(self) -> int | None:
        return self._config.detections.expiry_s

    def _properties(
        self, schema: str, expiry_s: int | None, packet: int = PacketTypes.PUBLISH
    ) -> Properties | None:
        if self._version != paho.MQTTv5:
            return None
        properties = Properties(packet)  # type: ignore[no-untyped-call]
        properties.ContentType = CONTENT_TYPE
        if schema:
            properties.UserProperty = ("schema", schema)
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        return properties

    def _aliased(self, topic: str, properties: Properties) -> str:
        """Topic to send: its alias stands for it once the broker has seen both together.

        Only for QoS 0: a message that is sent again in the next session would meet a broker that
        has forgotten the alias.
        """
        known = topic in self._aliases
        if not known and len(self._aliases) >= self._max_aliases:
            return topic
        properties.TopicAlias = self._aliases.setdefault(topic, len(self._aliases) + 1)
        return "" if known else topic


def check_broker(config: MqttConfig, device: str, timeout_s: float) -> str:
    """Connect, subscribe to a topic of our own and send a message round.

    Returns:
        What was found, for people.

    Raises:
        BrokerError: why it does not work, and what to do.
        ConfigError: certificates that cannot be read.
    """
    client = MqttClient(config, device, "check", watcher=True)
    topic = f"{config.prefix}/{device}/check"
    came = threading.Event()
    client.subscribe(topic, lambda _topic, _payload: came.set())
    client.start()
    deadline = time.monotonic() + timeout_s
    try:
        if not client.wait_connected(timeout_s):
            raise BrokerError(client.last_error or "the broker does not answer")
        client.publish(topic, b"{}", qos=1)
        if not came.wait(max(0.1, deadline - time.monotonic())):
            raise BrokerError(
                f"connected, but a message on {topic} did not come back; allow this device to "
                "write and read its own topics in the broker's access rules"
            )
        return f"{config.host}:{config.effective_port}, MQTT {client.protocol}, round trip works"
    finally:
        client.close(1.0)
