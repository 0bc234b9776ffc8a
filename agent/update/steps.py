"""Runs the step of an update that is under way, in a thread of its own, so that it can be ended."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agent.errors import AgentError, BundleError, DamageError, ExpiredError
from agent.threads import ThreadGroup
from agent.update.machine import Failed, Stopped
from agent.update.ports import UpdateCancelled
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.update.machine import Event
    from agent.update.record import Record

log = logging.getLogger(__name__)

NOBODY_ASKED = "the step was cancelled, and nobody had asked for it"


class StepRunner:
    """One step at a time.

    Args:
        work: carries out the effect of a record's state; see `agent.update.course.Course.step`.
        cancel: ends what `work` does where its event alone does not.
        ended: called, in the step's thread, when a step has ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        work: Callable[[Record, threading.Event], Event],
        cancel: Callable[[], None],
        ended: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._cancel = cancel
        self._ended = ended
        self._clock = clock
        self._group = ThreadGroup()
        self._lock = threading.Lock()
        self._record: Record | None = None
        self._cancelled = threading.Event()
        self._instead: Event | None = None
        self._outcome: Event | None = None
        self._until = 0.0

    @property
    def record(self) -> Record | None:
        """Whose step is under way, or has ended and was not taken yet."""
        return self._record

    def start(self, record: Record, limit_s: float) -> None:
        """Begin a record's step; it is broken off as a failure after `limit_s`."""
        assert self._record is None
        self._cancelled = threading.Event()
        self._instead = self._outcome = None
        self._until = self._clock() + limit_s
        self._record = record
        self._group.start("update-step", self._run, record, self._cancelled)

    def look(self) -> None:
        """Break off a step that takes too long; say again to one that it is to end.

        What `cancel` ends may have begun just after it was called.
        """
        record = self._record
        if record is not None and self._clock() > self._until:
            self.break_off(Failed(f"{record.state.value} took too long", blame=False))
        with self._lock:
            pending = self._instead is not None and self._outcome is None
        if pending:
            self._cancel()

    def break_off(self, event: Event) -> None:
        """Have the step end soon, with this event whatever it finds.

        The first one counts; but what only rests can still be given up.
        """
        with self._lock:
            gives_up = isinstance(self._instead, Stopped) and isinstance(event, Failed)
            if self._record is None or (self._instead is not None and not gives_up):
                return
            self._instead = event
            self._cancelled.set()
        self._cancel()

    def take(self) -> tuple[Record, Event] | None:
        """The record and the event of a step that has ended, once; None while there is none."""
        with self._lock:
            if self._record is None or self._outcome is None:
                return None
            record, event = self._record, self._instead or self._outcome
            self._record = None
            return record, event

    def wait(self, timeout_s: float) -> bool:
        """Wait for the step to end; False if it has not after `timeout_s`."""
        return self._group.wait(timeout_s)

    def _run(self, record: Record, cancelled: threading.Event) -> None:
        try:
            outcome = self._work(record, cancelled)
        except UpdateCancelled:
            outcome = Failed(NOBODY_ASKED, blame=False)
        except (AgentError, EngineError) as error:
            outcome = Failed(str(error), blame=_blames(error))
        except Exception as error:
            # A mistake of ours must not end updates for good; it is told like any other failure.
            log.exception("update of %s: %s failed", record.slot, record.state.value)
            outcome = Failed(f"internal error: {error!r}", blame=False)
        with self._lock:
            self._outcome = outcome
        self._ended()


def _blames(error: Exception) -> bool:
    """Whether an error speaks against the bundle itself, so that it is not tried again."""
    return isinstance(error, BundleError) and not isinstance(error, (DamageError, ExpiredError))
