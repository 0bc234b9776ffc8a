"""One connection to the broker, from TCP to its end.

Only this module and `agent.mqttpaho` import paho.

A session is used from one thread, except for `wake`. It is made anew for each connection, so no
packet, alias or packet id of an old connection can leak into a new one; what is to be sent again is
the caller's decision (`agent.mqttlink`).
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from agent.mqttpaho import (
    MAX_INCOMING_BYTES,
    BoundedClient,
    ErrorTap,
    connect_properties,
    message_properties,
    no_delay,
)
from agent.mqttreason import (
    SessionLostError,
    explain_connack,
    explain_connect,
    explain_disconnect,
    explain_loss,
    explain_no_answer,
    explain_silence,
)
from agent.mqttwait import SocketWait
from agent.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

    from agent.config import MqttConfig
    from agent.mqttmessage import Handlers, Message
    from agent.tls import NamedContext

MAX_INFLIGHT = 64
"""QoS 1 messages sent and not yet acknowledged, at the most."""

PACKET_OVERHEAD_BYTES = 256
"""More than fixed header, packet id and our properties take in a PUBLISH."""

matches = topic_matches_sub
"""`matches(topic_filter, topic)`."""


class Session:
    """One MQTT connection; made by `agent.mqttconnect.connect`.

    Args:
        config: the broker.
        client_id: unique at the broker.
        handlers: where events go.
        version: 5 or 4 (which is 3.1.1).
        will: what the broker publishes when we vanish.
        max_incoming_bytes: a larger packet ends the connection.

    Attributes:
        where: "host:port".
        version: "5" or "3.1.1".
        tls_version: such as "TLSv1.3", or None without TLS.
        inflight_limit: QoS 1 messages that may be unacknowledged.
        max_packet_bytes: largest packet that the broker takes, or None.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        handlers: Handlers,
        version: int,
        will: Message | None,
        max_incoming_bytes: int = MAX_INCOMING_BYTES,
    ) -> None:
        self.where = f"{config.host}:{config.effective_port}"
        self.version = "5" if version == MQTTProtocolVersion.MQTTv5 else "3.1.1"
        self.tls_version: str | None = None
        self.inflight_limit = MAX_INFLIGHT
        self.max_packet_bytes: int | None = None
        self._max_incoming_bytes = max_incoming_bytes
        self._config = config
        self._handlers = handlers
        self._v5 = self.version == "5"
        self._max_qos = 1
        self._retain_available = True
        self._alias_maximum = 0
        self._aliases: dict[str, int] = {}
        self._answer: tuple[int, str] | None = None
        self._lost: SessionLostError | None = None
        self._wait = SocketWait()
        self._context: NamedContext | None = None
        self._tap = ErrorTap()
        self._paho = self._new_client(client_id, version, will)

    def _new_client(self, client_id: str, version: int, will: Message | None) -> BoundedClient:
        config = self._config
        client = BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if self._v5 else True,
            protocol=MQTTProtocolVersion(version),
            reconnect_on_failure=False,
        )
        client.max_incoming_bytes = self._max_incoming_bytes
        client.connect_timeout = config.connect_timeout_s
        client.max_inflight_messages = MAX_INFLIGHT
        if config.username is not None:
            password = None if config.password is None else config.password.get_secret_value()
            client.username_pw_set(config.username, password)
        if will is not None:
            properties = message_properties(will, PacketTypes.WILLMESSAGE) if self._v5 else None
            client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
        tap = logging.Logger("paho", logging.ERROR)  # noqa: LOG001 - one for each session
        tap.addHandler(self._tap)
        client.enable_logger(tap)
        client.on_socket_open = no_delay
        client.on_socket_close = self._on_socket_close
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        return client

    def open(self, answer_s: float) -> None:
        """Connect and wait for the broker's answer.

        Args:
            answer_s: time for the answer, within the time for all.

        Raises:
            ConnectError: the broker cannot be reached or refuses us.
            ConfigError: a TLS file cannot be used.
        """
        config = self._config
        deadline = time.monotonic() + config.connect_timeout_s
        if config.tls is not None:
            self._context = client_context(config.tls)
            self._paho.tls_set_context(self._context)
        try:
            self._paho.connect(
                config.host,
                config.effective_port,
                config.keepalive_s,
                properties=connect_properties(self._max_incoming_bytes) if self._v5 else None,
            )
        except (OSError, ValueError) as error:
            raise explain_connect(
                error,
                self.where,
                tls=self._context is not None and self._context.wrapped is not None,
                timeout_s=config.connect_timeout_s,
            ) from error
        sock = self._paho.socket()
        if isinstance(sock, ssl.SSLSocket):
            self.tls_version = sock.version()
        answer_s = min(answer_s, config.connect_timeout_s)
        self._await_answer(min(deadline, time.monotonic() + answer_s), answer_s)

    def _await_answer(self, deadline: float, timeout_s: float) -> None:
        while self._answer is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise explain_no_answer(self.where, timeout_s=timeout_s)
            try:
                self.step(left)
            except SessionLostError as error:
                if self._answer is None:
                    raise explain_silence(
                        self._tap.error, self.where, tls=self._config.tls is not None
                    ) from error
        code, name = self._answer
        if code != 0:
            raise explain_connack(code, name, self.where)

    @property
    def clear(self) -> bool:
        """True if all that was published is written to the socket."""
        return not self._paho.want_write()

    def publish(self, message: Message) -> int:
        """Send a message.

        Returns:
            Its packet id, which `Handlers.acknowledged` will be told if its QoS is 1.

        Raises:
            SessionLostError: the connection has ended; the message was not sent.
        """
        topic, alias = message.topic, None
        if self._v5 and not message.retain:
            alias = self._aliases.get(topic)
            if alias is not None:
                topic = ""
            elif len(self._aliases) < self._alias_maximum:
                alias = self._aliases[topic] = len(self._aliases) + 1
        info = self._paho.publish(
            topic,
            message.payload,
            min(message.qos, self._max_qos),
            message.retain and self._retain_available,
            message_properties(message, PacketTypes.PUBLISH, alias) if self._v5 else None,
        )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or self._lost is not None:
            raise self._loss()
        return info.mid

    def awaits_acknowledgement(self, message: Message) -> bool:
        """True if the broker will acknowledge the message."""
        return min(message.qos, self._max_qos) > 0

    def fits(self, message: Message) -> bool:
        """True if the broker takes messages of this size."""
        size = len(message.payload) + len(message.topic.encode()) + PACKET_OVERHEAD_BYTES
        return self.max_packet_bytes is None or size <= self.max_packet_bytes

    def subscribe(self, topic_filters: Sequence[tuple[str, int]]) -> int:
        """Ask for messages, in one packet.

        Args:
            topic_filters: and the QoS of each.

        Returns:
            The packet id, which `Handlers.subscribed` will be told.

        Raises:
            SessionLostError: the connection has ended.
        """
        code, mid = self._paho.subscribe(list(topic_filters))
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise self._loss()
        return mid

    def unsubscribe(self, topic_filters: Sequence[str]) -> None:
        """Ask for no more of them, in one packet.

        Raises:
            SessionLostError: the connection has ended.
        """
        code, _ = self._paho.unsubscribe(list(topic_filters))
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._loss()

    def step(self, timeout_s: float) -> None:
        """Read and write what there is; wait for it up to `timeout_s`, or until `wake`.

        Raises:
            SessionLostError: the connection has ended.
        """
        sock = self._paho.socket()
        if sock is None:
            raise self._loss()
        readable, writable = self._wait.wait(
            sock, write=self._paho.want_write(), timeout_s=timeout_s
        )
        if readable:
            self._paho.loop_read()
            while self._paho.buffered and self._paho.socket() is not None:
                self._paho.loop_read()
        if writable:
            self._paho.loop_write()
        self._paho.loop_misc()
        if self._lost is not None or self._paho.socket() is None:
            raise self._loss()

    def wake(self) -> None:
        """Make `step` return; from any thread."""
        self._wait.wake()

    def close(self, *, goodbye: bool = True) -> None:
        """Give everything back; never raises.

        Args:
            goodbye: tell the broker that this is the end; without it publishes the will.
        """
        if goodbye:
            with contextlib.suppress(OSError, ValueError):
                self._paho.disconnect()
        # Still open if the goodbye did not go out at once (the broker will publish the will), or if
        # the handshake failed.
        wrapped = None if self._context is None else self._context.wrapped
        for sock in (self._paho.socket(), wrapped):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
        self._wait.close()

    def _loss(self) -> SessionLostError:
        return self._lost or explain_loss(self._tap.error, self.where)

    def _on_connect(
        self, _client: Client, _data: Any, _flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        self._answer = (code.value, str(code))
        # Absent properties mean these defaults: MQTT 5.0, 3.2.2.3.
        self.inflight_limit = min(MAX_INFLIGHT, getattr(properties, "ReceiveMaximum", MAX_INFLIGHT))
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._max_qos = getattr(properties, "MaximumQoS", 1)
        self._retain_available = bool(getattr(properties, "RetainAvailable", 1))
        self._alias_maximum = getattr(properties, "TopicAliasMaximum", 0)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        """Read what a broker that refuses our certificate said.

        With TLS 1.3 it does so after the handshake, and closes; writing may fail before that.
        """
        if self._answer is None and isinstance(self._tap.error, ssl.SSLEOFError):
            try:
                sock.recv(1)
            except OSError as error:
                self._tap.error = error

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._lost = explain_disconnect(code.value, str(code), self.where)
        else:
            silent = code.getName() == "Keep alive timeout"
            self._lost = explain_loss(self._tap.error, self.where, silent=silent)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._handlers.received(topic, bytes(message.payload))

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, code: ReasonCode, _properties: Any
    ) -> None:
        self._handlers.acknowledged(mid, str(code) if code.is_failure else "")

    def _on_subscribe(
        self, _client: Client, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refusals = tuple(str(code) if code.is_failure else "" for code in codes)
        self._handlers.subscribed(mid, refusals)
