"""What is told of the building of a slot's engine; safe to use from several threads."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.wire.buildstate import BuildState

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.backend import Progress

log = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
"""Progress within a step is told no more often."""


class BuildNews:
    """The state that is told, and when it is.

    Args:
        slot: name of the model in the configuration.
        changed: called, from any thread, when `state` has changed.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        state: how the building goes; None while nothing is known of it.
    """

    def __init__(
        self,
        slot: str,
        changed: Callable[[], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.state: BuildState | None = None
        self._slot = slot
        self._changed = changed
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._told_s = 0.0

    def begin(self) -> None:
        """A build begins."""
        self.tell(BuildState("building", step="starting", started=self._wall()))

    def tell(self, state: BuildState | None) -> None:
        """This is the state now."""
        with self._lock:
            self.state = state
        self._changed()

    def progress(self, progress: Progress) -> None:
        """A build has come so far."""
        with self._lock:
            before = self.state or BuildState()
            self.state = replace(
                before, step=progress.step, done=progress.done, total=progress.total
            )
            now = self._clock()
            due = progress.step != before.step or now - self._told_s >= TELL_EVERY_S
            if due:
                self._told_s = now
        if due:
            self._changed()

    def fail(self, reason: str) -> None:
        """It has failed, or what was built has."""
        log.error("model %s: %s", self._slot, reason)
        with self._lock:
            before = self.state or BuildState()
            self.state = BuildState(
                "failed",
                reason=reason,
                started=before.started,
                ended=self._wall(),
                report=before.report,
            )
        self._changed()
