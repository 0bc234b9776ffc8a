"""A relay that reads what a broker publishes, and can lose, repeat, reorder and falsify it."""

from __future__ import annotations

import dataclasses
import select
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.integration.relay import CHUNK, Relay

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

PUBLISH = 3
PUBACK = 4
IDLE_S = 0.05
"""What a mangler holds back is asked for when nothing more has come for so long."""


@dataclass(frozen=True)
class Publish:
    """A message on its way to a client. `head`: packet id and properties, as they came."""

    flags: int
    topic: str
    head: bytes
    payload: bytes

    @property
    def block(self) -> int | None:
        """Number of the block, if it is one."""
        kind, _, number = self.topic.rpartition("/block/")
        return int(number) if kind and number.isdecimal() else None

    def saying(self, payload: bytes) -> Publish:
        return dataclasses.replace(self, payload=payload)


class Mangler:
    """Takes every message, gives what is to be delivered in its place."""

    def take(self, message: Publish) -> Iterable[Publish]:
        return (message,)

    def idle(self) -> Iterable[Publish]:
        """Nothing has come for a while: what was held back."""
        return ()


class MqttRelay(Relay):
    """Relays MQTT; messages to clients go through a mangler.

    Args:
        target: the broker's port.
        mangler: makes one for each connection.
        v5: whether clients speak MQTT 5.
        acknowledge: whether the broker is told that messages which were lost have arrived.

    Attributes:
        delivered: how often each block was delivered.
        on_block: called with the number of blocks delivered so far, before each is.
    """

    def __init__(
        self,
        target: int,
        mangler: Callable[[], Mangler] = Mangler,
        *,
        v5: bool = True,
        acknowledge: bool = True,
    ) -> None:
        super().__init__(target)
        self.delivered: Counter[int] = Counter()
        self.on_block: Callable[[int], None] = lambda _count: None
        self._mangler = mangler
        self._v5 = v5
        self._acknowledge = acknowledge
        self._writing = threading.Lock()

    def _pump(self, source: socket.socket, sink: socket.socket, record: bool) -> None:
        if record:
            self._pump_up(source, sink)
        else:
            self._pump_down(source, sink)

    def _pump_up(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(CHUNK):
            self.sent += data
            # Acknowledgements of what was lost go the same way.
            with self._writing:
                sink.sendall(data)

    def _pump_down(self, source: socket.socket, sink: socket.socket) -> None:
        mangler = self._mangler()
        waiting = bytearray()
        while True:
            # A time limit of the socket would be one for what is sent the other way, too.
            if not select.select([source], [], [], IDLE_S)[0]:
                self._deliver(sink, mangler.idle())
                continue
            data = source.recv(CHUNK)
            if not data:
                return
            waiting += data
            while (packet := _cut(waiting)) is not None:
                self._pass(packet, mangler, source, sink)

    def _pass(
        self, packet: bytes, mangler: Mangler, source: socket.socket, sink: socket.socket
    ) -> None:
        if packet[0] >> 4 != PUBLISH:
            sink.sendall(packet)
            return
        message = _read(packet, v5=self._v5)
        out = tuple(mangler.take(message))
        if not out and self._acknowledge and message.flags & 6:
            with self._writing:
                source.sendall(bytes([PUBACK << 4, 2]) + message.head[:2])
        self._deliver(sink, out)

    def _deliver(self, sink: socket.socket, messages: Iterable[Publish]) -> None:
        for message in messages:
            if message.block is not None:
                self.on_block(self.delivered.total())
                self.delivered[message.block] += 1
            sink.sendall(_write(message))


def _cut(waiting: bytearray) -> bytes | None:
    """Take one packet off the front, if it is whole."""
    length = shift = 0
    for at in range(1, min(len(waiting), 5)):
        length |= (waiting[at] & 127) << shift
        shift += 7
        if not waiting[at] & 128:
            end = at + 1 + length
            if len(waiting) < end:
                return None
            packet = bytes(waiting[:end])
            del waiting[:end]
            return packet
    return None


def _read(packet: bytes, *, v5: bool) -> Publish:
    at = 1 + next(n for n in range(1, 5) if not packet[n] & 128)
    size = int.from_bytes(packet[at : at + 2], "big")
    topic = packet[at + 2 : at + 2 + size].decode()
    begin = end = at + 2 + size
    if packet[0] & 6:
        end += 2
    if v5:
        # Their length is a single byte: they are fewer than 128.
        end += 1 + packet[end]
    return Publish(packet[0], topic, packet[begin:end], packet[end:])


def _write(message: Publish) -> bytes:
    topic = message.topic.encode()
    body = len(topic).to_bytes(2, "big") + topic + message.head + message.payload
    length, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([message.flags]) + length + body
