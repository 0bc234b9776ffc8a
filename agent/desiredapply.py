"""Brings settings from afar into force beside everything else: a camera takes seconds to start."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from agent.desired import PROVE_S
from agent.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.documents import Settings

DOUBT_S = 5.0
"""What nobody vouches for is told so often at the most; telemetry counts all of it."""


class Site(Protocol):
    """`agent.reload.Reloader`, as far as it is needed here."""

    def take(self, settings: Settings, envelope: bytes) -> None:
        """Bring verified settings into force; blocks, raises nothing for what is wrong in them."""

    def doubt(self, reason: str) -> None:
        """Some came that are not even looked at."""

    def proven(self) -> None:
        """The agent runs well with what it took last."""


class Applier:
    """A thread that brings settings into force, the newest if several wait.

    It is an `agent.update.desired.Taker`.

    Args:
        site: gives the running agent.
        prove_s: as `PROVE_S`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        site: Callable[[], Site],
        prove_s: float = PROVE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._prove_s = prove_s
        self._clock = clock
        self._doubted_s = float("-inf")
        self._changed = threading.Condition()
        self._waiting: Callable[[Site], None] | None = None
        self._unproven = True
        self._closed = False
        self._group = ThreadGroup()

    def start(self) -> None:
        """Begin."""
        self._group.start("settings", self._run)

    def take(self, settings: Settings, envelope: bytes) -> None:
        """See `agent.update.desired.Taker`."""
        with self._changed:
            self._waiting = lambda site: site.take(settings, envelope)
            self._changed.notify_all()

    def refused(self, reason: str) -> None:
        """See `agent.update.desired.Taker`."""
        now = self._clock()
        with self._changed:
            # What waits is worth more, and a flood must not become one of ours.
            if self._waiting is not None or now - self._doubted_s < DOUBT_S:
                return
            self._doubted_s = now
            self._waiting = lambda site: site.doubt(reason)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and wait.

        Returns:
            False if something is still being brought into force.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        return self._group.wait(timeout_s)

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._waiting is not None,
                    self._prove_s if self._unproven else None,
                )
                act, self._waiting = self._waiting, None
            if act is not None and not self._closed:
                act(self._site())
                self._unproven = True
            else:
                self._site().proven()
                self._unproven = False
