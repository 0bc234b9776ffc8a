"""What the session needs of paho beyond its public functions, in one place."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.mqttreason import OversizeError

if TYPE_CHECKING:
    from agent.mqttmessage import Message

MAX_INCOMING_BYTES = 4 * 2**20
"""Largest packet that is taken, unless told otherwise. The largest message there is for us has less
than half of it."""

CONTENT_TYPE = "application/json"


class ErrorTap(logging.Handler):
    """Keeps the exception that the library would only log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.error: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take what the library logs."""
        if isinstance(record.args, tuple) and record.args:
            error = record.args[0]
            if isinstance(error, Exception):
                self.error = error


READ_AHEAD_BYTES = 64 * 2**10
"""Read from the socket at a time: the library asks for the head of each packet byte by byte."""


class BoundedClient(Client):
    """Refuses packets that are too large before there is memory for them, and reads ahead.

    The library would take up to 256 MB. A broker that knows MQTT 5 is told the limit and keeps to
    it; this is for others.

    What was read ahead makes no socket readable: call `loop_read` until `buffered` is false.
    """

    max_incoming_bytes = MAX_INCOMING_BYTES
    _ahead = memoryview(b"")

    @property
    def buffered(self) -> bool:
        """Whether something was read from the socket and not looked at."""
        return bool(self._ahead)

    def _sock_recv(self, bufsize: int) -> bytes:
        # Called with all that is missing of a packet.
        if bufsize > self.max_incoming_bytes:
            raise OversizeError(f"a packet of {bufsize} bytes, {self.max_incoming_bytes} at most")
        if not self._ahead:
            if bufsize >= READ_AHEAD_BYTES:
                return super()._sock_recv(bufsize)
            self._ahead = memoryview(super()._sock_recv(READ_AHEAD_BYTES))
        taken, self._ahead = self._ahead[:bufsize], self._ahead[bufsize:]
        return bytes(taken)


def connect_properties(max_incoming_bytes: int) -> Properties:
    """What a broker that knows MQTT 5 is told on connecting: larger packets must not be sent."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = max_incoming_bytes
    return properties


def message_properties(message: Message, packet_type: int, alias: int | None = None) -> Properties:
    """What is told with a message to a broker that knows MQTT 5."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    properties.ContentType = CONTENT_TYPE
    if message.schema:
        properties.UserProperty = ("schema", message.schema)
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if alias is not None:
        properties.TopicAlias = alias
    return properties


def no_delay(_client: Client, _data: Any, sock: Any) -> None:
    """A message must not wait for the acknowledgement of the one before (Nagle)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
