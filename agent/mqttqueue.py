"""Which message is sent next, and which again: the state of a link's sending side. Pure.

Messages are sent in the order in which they were taken. Retained messages go first, the newest of
each topic only, and all of them again on every new connection. What an old connection left without
acknowledgement is sent again before anything newer. A message that was sent in vain repeatedly is
sent alone, after that it is hopeless: it may be why connections end.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.mqttmessage import Message

MAX_WAITING = 128
"""Messages taken and not yet sent or not yet acknowledged, at the most."""

SUSPECT_SENDS = 2
MAX_SENDS = 5
"""A message that was sent so often without being acknowledged may be why connections end."""

BLAMELESS_BYTES = 1024
"""A retained message up to this size is never given up: every broker takes so much, and without its
status a device would seem to be away."""


@dataclass(slots=True)
class Entry:
    """A message on its way.

    Attributes:
        message: the message.
        kept: it is one of the retained messages, which every new connection is told anyway.
        sends: how often it was given to a connection since it was last acknowledged.
    """

    message: Message
    kept: bool = False
    sends: int = 0

    @property
    def suspect(self) -> bool:
        """True if it was sent in vain repeatedly: it is sent alone, so that it alone is blamed."""
        return self.sends >= SUSPECT_SENDS

    @property
    def hopeless(self) -> bool:
        """True if it was sent in vain too often; it is to be given up."""
        if self.kept and len(self.message.payload) <= BLAMELESS_BYTES:
            return False
        return self.sends >= MAX_SENDS


class SendQueue:
    """The messages of a link; used under the link's lock."""

    def __init__(self) -> None:
        self._retained: dict[str, Entry] = {}
        self._untold: OrderedDict[str, None] = OrderedDict()
        self._waiting: deque[Entry] = deque()
        self._in_hand: Entry | None = None
        self._sent: OrderedDict[int, Entry] = OrderedDict()

    @property
    def load(self) -> int:
        """Messages not yet sent, or not yet acknowledged."""
        return len(self._waiting) + len(self._sent) + (self._in_hand is not None)

    @property
    def unacknowledged(self) -> int:
        """Messages that were sent and await an acknowledgement."""
        return len(self._sent)

    @property
    def empty(self) -> bool:
        """True if nothing is to be sent and nothing awaits an acknowledgement."""
        return not self._untold and not self.load

    def take(self, message: Message) -> bool:
        """Add a message; False if there is no room."""
        if self.load >= MAX_WAITING:
            return False
        self._waiting.append(Entry(message))
        return True

    def keep(self, message: Message) -> None:
        """Tell a retained message, now and on every new connection, until a newer one comes."""
        self._retained[message.topic] = Entry(message, kept=True)
        self._untold[message.topic] = None

    def next(self) -> Entry | None:
        """The message to send now, or None; its fate is then `sent`, `done` or `give_up`."""
        self._in_hand = None
        if self._sent and next(reversed(self._sent.values())).sends > SUSPECT_SENDS:
            return None
        kept = [self._retained[topic] for topic in self._untold]
        # The suspects last, so that they do not keep the others from being told.
        entry = min(kept, key=lambda e: e.suspect, default=None)
        if entry is None and self._waiting:
            entry = self._waiting[0]
        if entry is None or (self._sent and entry.suspect):
            return None
        if entry.kept:
            del self._untold[entry.message.topic]
        else:
            self._waiting.popleft()
        self._in_hand = entry
        return entry

    def sent(self, packet_id: int) -> None:
        """The message in hand was sent and will be acknowledged."""
        if self._in_hand is not None:
            self._sent[packet_id] = self._in_hand
            self._in_hand = None

    def done(self) -> None:
        """The message in hand needs nothing more on this connection."""
        if self._in_hand is not None:
            self._in_hand.sends = 0
            self._in_hand = None

    def give_up(self) -> None:
        """The message in hand is not sent again, on no connection."""
        if self._in_hand is not None:
            topic = self._in_hand.message.topic
            if self._retained.get(topic) is self._in_hand:
                del self._retained[topic]
            self._in_hand = None

    def acknowledged(self, packet_id: int) -> Message | None:
        """The message of this packet id, which needs nothing more; None if there is none."""
        entry = self._sent.pop(packet_id, None)
        if entry is None:
            return None
        entry.sends = 0
        return entry.message

    def disconnected(self) -> None:
        """The connection has ended: what it left open is to be sent again."""
        left = [*self._sent.values(), *([] if self._in_hand is None else [self._in_hand])]
        self._sent.clear()
        self._in_hand = None
        self._waiting.extendleft(entry for entry in reversed(left) if not entry.kept)
        self._untold = OrderedDict.fromkeys(self._retained)
