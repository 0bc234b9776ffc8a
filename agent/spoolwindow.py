"""Messages on their way: handed to the link, not yet acknowledged. No I/O.

The link sends again what a lost connection left open. What a connected broker leaves without an
answer, or refuses, is offered again a few times and then given up: it may never be taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from agent.spoolitem import Item

WINDOW = 64
"""Messages on their way at the most; half of what the link takes (`agent.mqttqueue`)."""

RESEND_S = 30.0
"""Without an acknowledgement for so long while connected, a message is offered again."""

MAX_OFFERS = 5


@dataclass(slots=True)
class _Sent:
    item: Item
    ticket: int
    stored: bool
    since: float
    offers: int = 1


class Window:
    """What is on its way, by key; used by one thread.

    Args:
        clock: monotonic seconds.

    Attributes:
        given_up: messages that were never acknowledged and are not offered any more.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.given_up = 0
        self._clock = clock
        self._sent: dict[int, _Sent] = {}
        # Keys may change while a message is on its way, tickets do not.
        self._tickets = count()
        self._keys: dict[int, int] = {}

    @property
    def room(self) -> int:
        """How many more may go on their way."""
        return WINDOW - len(self._sent)

    def keys(self) -> Collection[int]:
        """Of everything on its way."""
        return self._sent.keys()

    def ticket(self, key: int) -> int:
        """What an acknowledgement of a message is to name: its own, or one for a new one."""
        entry = self._sent.get(key)
        return next(self._tickets) if entry is None else entry.ticket

    def sent(self, item: Item, ticket: int, *, stored: bool) -> None:
        """A message was handed over; `stored`: it is on the disk."""
        self._sent[item.key] = _Sent(item, ticket, stored, self._clock())
        self._keys[ticket] = item.key

    def again(self, key: int) -> None:
        """A message was handed over once more."""
        entry = self._sent[key]
        entry.since, entry.offers = self._clock(), entry.offers + 1

    def unwritten(self) -> list[Item]:
        """What is on no disk."""
        return [entry.item for entry in self._sent.values() if not entry.stored]

    def stored(self, *, stored: bool) -> None:
        """Everything on its way is on the disk now, or nothing of it any more."""
        for entry in self._sent.values():
            entry.stored = stored

    def shift(self, numbers: int) -> None:
        """Give what is on no disk higher numbers."""
        entries = list(self._sent.values())
        for entry in entries:
            if not entry.stored:
                entry.item = replace(entry.item, key=entry.item.key + numbers)
        self._sent = {entry.item.key: entry for entry in entries}
        self._keys = {entry.ticket: entry.item.key for entry in entries}

    def acknowledged(self, tickets: Iterable[int]) -> list[tuple[int, bool]]:
        """The broker has these.

        Returns:
            Keys of those that were still on their way, and whether each is on the disk.
        """
        keys = [self._keys.pop(ticket) for ticket in tickets if ticket in self._keys]
        return [(key, self._sent.pop(key).stored) for key in keys]

    def overdue(self, *, connected: bool) -> list[Item]:
        """What is to be offered again."""
        now = self._clock()
        if not connected:
            # The link offers them itself, once there is a connection.
            for entry in self._sent.values():
                entry.since = now
            return []
        return [
            entry.item
            for entry in self._sent.values()
            if now - entry.since >= RESEND_S and entry.offers < MAX_OFFERS
        ]

    def hopeless(self) -> list[int]:
        """Take out what was offered too often.

        Returns:
            The keys of those on the disk.
        """
        now = self._clock()
        out = {
            key: entry.stored
            for key, entry in self._sent.items()
            if entry.offers >= MAX_OFFERS and now - entry.since >= RESEND_S
        }
        for key in out:
            del self._keys[self._sent.pop(key).ticket]
        self.given_up += len(out)
        return [key for key, stored in out.items() if stored]

    def pause(self) -> float:
        """Seconds until something may be overdue; infinite if nothing is on its way."""
        since = min((entry.since for entry in self._sent.values()), default=float("inf"))
        return since + RESEND_S - self._clock()
