"""Where everything that happens on the device is told once: logged, kept for the status page, sent.

Whoever has something to tell calls `Events.tell` from any thread; it neither blocks nor raises.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.wire.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.wire.events import EventKind, Severity

log = logging.getLogger(__name__)

KEPT = 100
"""Events kept for the status page."""

UNTOLD = "untold"
"""Counted beside the kinds: events that could not be handed on."""

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Events:
    """Takes events and hands each on.

    Args:
        hand_on: sends an event; must not block. A failure of it is logged and counted.
    """

    def __init__(self, hand_on: Callable[[Event], None]) -> None:
        self._hand_on = hand_on
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._counts: Counter[str] = Counter()

    def tell(self, kind: EventKind, severity: Severity, what: str, **data: object) -> None:
        """Something happened; see `agent.wire.events.Event`."""
        event = Event(kind, severity, what, data)
        log.log(LEVELS[severity], "%s: %s", kind, what)
        with self._lock:
            self._kept.append(event)
            self._counts[kind] += 1
        try:
            self._hand_on(event)
        except Exception:
            # Telling must never hurt whoever tells, whatever is wrong with who hands on.
            with self._lock:
                self._counts[UNTOLD] += 1
            log.exception("an event could not be handed on")

    def recent(self) -> tuple[Event, ...]:
        """The newest events, oldest first."""
        with self._lock:
            return tuple(self._kept)

    def counters(self) -> dict[str, int]:
        """How many there were since the start, by kind; and how many stayed `UNTOLD`."""
        with self._lock:
            return dict(self._counts)
