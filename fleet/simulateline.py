"""One MQTT connection among a thousand, in one thread: paho under an asyncio loop.

`agent.mqttlink` has a thread for each connection, which is right for a device and wrong for a
crowd of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from paho.mqtt.client import MQTTMessage

    from agent.config import MqttConfig

READS_AT_ONCE = 8
"""Packets read before the other connections have their turn."""


class Line:
    """One connection; made anew by its owner when it is lost.

    Args:
        config: the broker.
        client_id: unique at the broker.
        context: TLS, or None.
        received: called with topic and payload.
        up: called when the broker has accepted us.
        down: called once when the connection has ended, with why.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        context: ssl.SSLContext | None,
        received: Callable[[str, bytes], None],
        up: Callable[[], None],
        down: Callable[[str], None],
    ) -> None:
        self._config = config
        self._received = received
        self._up = up
        self._down = down
        self._loop = asyncio.get_running_loop()
        self._acknowledged: dict[int, Callable[[], None]] = {}
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        if context is not None:
            client.tls_set_context(context)
        client.connect_timeout = config.connect_timeout_s
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        self._paho = client

    def open(self) -> None:
        """Connect; TCP and TLS are waited for, the broker's answer is not.

        Raises:
            OSError: it cannot be reached.
        """
        self._paho.connect(self._config.host, self._config.effective_port, self._config.keepalive_s)

    def subscribe(self, topics: list[str]) -> None:
        """Ask for messages, QoS 1."""
        if topics:
            self._paho.subscribe([(topic, 1) for topic in topics])

    def unsubscribe(self, topics: list[str]) -> None:
        """Ask for no more of them."""
        if topics:
            self._paho.unsubscribe(topics)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Send a message, QoS 1."""
        info = self._paho.publish(topic, payload, 1, retain)
        if acknowledged is not None and info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._acknowledged[info.mid] = acknowledged

    def tick(self) -> None:
        """Keep the connection alive; to be called every few seconds."""
        self._paho.loop_misc()

    def close(self) -> None:
        """Say goodbye."""
        self._paho.disconnect()

    def _read(self) -> None:
        for _ in range(READS_AT_ONCE):
            self._paho.loop_read()
            sock = self._paho.socket()
            # What OpenSSL has decrypted already makes no socket readable.
            pending = getattr(sock, "pending", None)
            if pending is None or not pending():
                return
        self._loop.call_soon(self._read)

    def _on_socket_open(self, _client: Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(sock, self._read)

    def _on_socket_close(self, _client: Client, _data: Any, sock: Any) -> None:
        with contextlib.suppress(ValueError):
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    def _on_register_write(self, _client: Client, _data: Any, sock: Any) -> None:
        self._loop.add_writer(sock, self._paho.loop_write)

    def _on_unregister_write(self, _client: Client, _data: Any, sock: Any) -> None:
        self._loop.remove_writer(sock)

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._down(str(code))
        else:
            self._up()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        self._down(str(code))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._received(message.topic, bytes(message.payload))

    def _on_publish(self, _client: Client, _data: Any, mid: int, _code: Any, _p: Any) -> None:
        told = self._acknowledged.pop(mid, None)
        if told is not None:
            told()
