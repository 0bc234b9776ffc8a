"""What the session needs of paho beyond its public functions, in one place."""

from __future__ import annotations

import functools
import logging
import socket
import ssl
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.mqttreason import OversizeError

if TYPE_CHECKING:
    from agent.mqttmessage import Message

MAX_INCOMING_BYTES = 4 * 2**20
"""Largest packet that is taken, unless told otherwise. The largest message there is for us has less
than half of it."""

READ_AHEAD_BYTES = 128 * 2**10
"""Read from a socket at once: a block and what follows it."""

CONTENT_TYPE = "application/json"

PRIVATE = ("_call_socket_register_write", "_handle_on_message", "_handle_publish", "_in_packet",
           "_protocol", "_send_puback", "_sock", "_sock_recv")  # fmt: skip
"""What `BoundedClient` needs of the library that it promises to nobody: as in 2.1 and 2.2."""

log = logging.getLogger(__name__)


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


class BoundedClient(Client):
    """Refuses packets that are too large before there is memory for them, and reads cheaply.

    The library would take up to 256 MB. A broker that knows MQTT 5 is told the limit and keeps to
    it; this is for others.

    The library asks the system for each byte of a header, and lets go of the interpreter for each;
    here it is given what was read ahead. Of a message's properties it makes an object of 27 fields,
    which nobody here looks at: they are skipped.

    With a library that has other private parts than `PRIVATE` it reads as the library does, and
    says so once.
    """

    max_incoming_bytes = MAX_INCOMING_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        missing = tuple(name for name in PRIVATE if not hasattr(self, name))
        self._known = not missing
        if missing:
            _tell_unknown(missing)
        self._ahead = memoryview(b"")
        self._room = memoryview(bytearray(READ_AHEAD_BYTES))

    @property
    def pending(self) -> bool:
        """True if something was read that `loop_read` has not looked at yet."""
        return bool(self._ahead)

    def _sock_recv(self, bufsize: int) -> bytes:
        # Called with 1 for a header, then with all that is missing of a packet.
        if bufsize > self.max_incoming_bytes:
            raise OversizeError(f"a packet of {bufsize} bytes, {self.max_incoming_bytes} at most")
        if not self._known:
            return super()._sock_recv(bufsize)
        if not self._ahead:
            self._ahead = self._room[: self._read_ahead()]
        data = bytes(self._ahead[:bufsize])
        self._ahead = self._ahead[bufsize:]
        return data

    def _read_ahead(self) -> int:
        if self._sock is None:
            raise ConnectionError("the socket is closed")
        try:
            return int(cast("Any", self._sock).recv_into(self._room))
        except ssl.SSLWantReadError as error:
            raise BlockingIOError from error
        except ssl.SSLWantWriteError as error:
            self._call_socket_register_write()
            raise BlockingIOError from error

    def _handle_publish(self) -> MQTTErrorCode:
        if not self._known:
            return super()._handle_publish()
        packet = self._in_packet["packet"]
        qos = self._in_packet["command"] >> 1 & 3
        if qos > 1:
            # Nothing is subscribed to with more than 1.
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        begin = 2 + int.from_bytes(packet[:2], "big")
        topic, mid = bytes(packet[2:begin]), 0
        if qos:
            mid = int.from_bytes(packet[begin : begin + 2], "big")
            begin += 2
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            begin = _after_properties(packet, begin)
        if begin > len(packet):
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        message = MQTTMessage(mid, topic)
        # One copy, where slicing what was sliced makes one for each part.
        message.payload = bytes(memoryview(packet)[begin:])
        self._handle_on_message(message)
        return self._send_puback(mid) if qos else MQTTErrorCode.MQTT_ERR_SUCCESS


@functools.cache
def _tell_unknown(missing: tuple[str, ...]) -> None:
    log.warning(
        "paho-mqtt %s has no %s: it is read from in the library's slower way, and brokers before "
        "MQTT 5 may send packets of any size; install paho-mqtt 2.1 or 2.2",
        version("paho-mqtt"),
        ", ".join(missing),
    )


def _after_properties(packet: bytearray, at: int) -> int:
    """Where the properties end that begin here with their length, of 1 to 4 bytes.

    Beyond the packet's end if that is no length.
    """
    length = 0
    for place, byte in enumerate(packet[at : at + 4]):
        length |= (byte & 127) << 7 * place
        if not byte & 128:
            return at + place + 1 + length
    return len(packet) + 1


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
