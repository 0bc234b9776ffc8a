"""What a link is subscribed to: whom a message is for, and what the broker is to be told. Pure.

It outlives connections: on a new one everything is asked for again. Used under the link's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.mqttsession import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Callback = Callable[[str, bytes], None]

ASK_TOGETHER = 64
"""Topics in one SUBSCRIBE at the most."""

LEAVE_TOGETHER = 16
"""Topics in one UNSUBSCRIBE, unless nothing else is subscribed. A message that comes on one of them
until then is for nobody."""


class Subscriptions:
    """Filters, callbacks, and what the broker knows of them."""

    def __init__(self) -> None:
        self._exact: dict[str, tuple[Callback, int]] = {}
        self._patterns: dict[str, tuple[Callback, int]] = {}
        self._unasked: dict[str, int] = {}
        self._packets: dict[int, tuple[str, ...]] = {}
        self._unanswered: set[str] = set()
        self._unleft: dict[str, None] = {}

    def add(self, topic_filter: str, callback: Callback, qos: int) -> None:
        """Have `callback` called for messages; the newest of a filter counts.

        The broker is asked, also where it was before: it sends what is retained again. Only what
        was asked for and is not answered yet is on its way already.
        """
        place = self._patterns if "+" in topic_filter or "#" in topic_filter else self._exact
        place[topic_filter] = (callback, qos)
        self._unleft.pop(topic_filter, None)
        if topic_filter not in self._unanswered:
            self._unasked[topic_filter] = qos

    def remove(self, topic_filters: Iterable[str]) -> None:
        """Have nothing called for these any more."""
        for topic_filter in topic_filters:
            known = self._exact.pop(topic_filter, None) or self._patterns.pop(topic_filter, None)
            # One that was never asked for needs not be left; that it may have been asked for
            # before does no harm.
            if self._unasked.pop(topic_filter, None) is None and known is not None:
                self._unleft[topic_filter] = None

    def connected(self) -> None:
        """A connection has begun, on which the broker knows of nothing."""
        everything = {**self._exact, **self._patterns}
        self._unasked = {topic_filter: qos for topic_filter, (_, qos) in everything.items()}
        self._packets.clear()
        self._unanswered.clear()
        self._unleft.clear()

    def ask(self) -> list[tuple[str, int]]:
        """Filters and their QoS for the next SUBSCRIBE; empty if there is nothing to ask."""
        together = list(self._unasked.items())[:ASK_TOGETHER]
        for topic_filter, _ in together:
            del self._unasked[topic_filter]
        return together

    def asked(self, packet_id: int, topic_filters: Sequence[str]) -> None:
        """They were asked for in this packet."""
        self._packets[packet_id] = tuple(topic_filters)
        self._unanswered.update(topic_filters)

    def answered(self, packet_id: int) -> tuple[str, ...]:
        """The broker has answered a packet; its filters."""
        topic_filters = self._packets.pop(packet_id, ())
        self._unanswered.difference_update(topic_filters)
        return topic_filters

    def leave(self) -> list[str]:
        """Filters for the next UNSUBSCRIBE; empty while it is not worth one."""
        if len(self._unleft) < LEAVE_TOGETHER and (self._exact or self._patterns):
            return []
        together = list(self._unleft)
        self._unleft.clear()
        return together

    def callbacks(self, topic: str) -> list[Callback]:
        """Whom a message is for."""
        found = [callback for f, (callback, _) in self._patterns.items() if matches(f, topic)]
        exact = self._exact.get(topic)
        if exact is not None:
            found.append(exact[0])
        return found
