"""Receives updates and carries them through, one at a time: the shell around the pure parts.

One thread decides: it hears what has arrived, verifies it, and moves records. Another carries out
the step that is under way (`agent.update.steps`), so that a newer assignment, a command or the end
of the agent is heard while a bundle is fetched for hours or an engine is built for minutes. Nothing
that is not verified breaks a step off, or is kept.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent import stallpoint
from agent.errors import BundleError, KeyStoreError, StoreError
from agent.progress import Activity
from agent.threads import ThreadGroup
from agent.update.assignments import Assignments
from agent.update.desired import DesiredSettings
from agent.update.machine import Failed, Offered, Stopped
from agent.update.moves import Moves
from agent.update.ports import UpdateCancelled
from agent.update.quietlog import QuietLog
from agent.update.steps import StepRunner
from agent.update.wishes import Wishes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from agent.bundle.documents import Assignment
    from agent.bundle.trust import Trust
    from agent.errors import AgentError
    from agent.update.course import Course
    from agent.update.desired import Taker
    from agent.update.inbox import Inbox
    from agent.update.machine import Event
    from agent.update.ports import Candidate, Proofs
    from agent.update.record import Record
    from agent.update.reporting import Reporter
    from agent.update.store import Store
    from agent.update.telling import Teller

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often the thread looks for what nobody tells it: deadlines, requests of the command line,
reports that can be sent again."""

TROUBLE_S = 10.0
"""While something stands in the way, like a full disk, it is tried so often, and at arrivals."""

AGAIN_S = 0.2
"""While the agent ends, the step under way is told to end as often."""


class Updater:
    """See the module.

    Args:
        device: device id.
        slots: names of the model slots.
        store: what is remembered.
        trust: what the release keys, directors and operators sign.
        course: the effects of the states.
        proofs: switches models.
        teller: tells how it goes.
        reporter: reports how it ended.
        inbox: what arrives.
        settings: brings operators' settings into force.
        reply: publishes the answer to a command: topic level, payload.
        restart: ends the agent, for its service manager to start it anew.
        state: the state folder, where the command line leaves its requests.
        active: what was opened at the start, by slot.
        now: seconds since the epoch, never below the time floor.
        clock: monotonic seconds.
        trouble: told, at every turn, why updates stand still; None if they do not.
    """

    def __init__(
        self,
        *,
        device: str,
        slots: Collection[str],
        store: Store,
        trust: Trust,
        course: Course,
        proofs: Proofs,
        teller: Teller,
        reporter: Reporter,
        inbox: Inbox,
        settings: Taker,
        reply: Callable[[str, bytes], None],
        restart: Callable[[], None],
        state: Path,
        active: dict[str, Candidate],
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self._slots = frozenset(slots)
        self._store = store
        self._trust = trust
        self._course = course
        self._teller = teller
        self._reporter = reporter
        self._inbox = inbox
        self._tell_trouble = trouble
        self._trouble: str | None = None
        self._quiet = QuietLog(log, clock)
        self._moves = Moves(
            store=store,
            course=course,
            proofs=proofs,
            teller=teller,
            active=active,
            quiet=self._quiet,
        )
        self._assignments = Assignments(
            device=device,
            slots=self._slots,
            store=store,
            trust=trust,
            now=now,
            refuse=self._refuse,
            quiet=self._quiet,
        )
        self._desired = DesiredSettings(
            device=device, store=store, trust=trust, now=now, taker=settings, refuse=self._refuse
        )
        self._steps = StepRunner(course.step, proofs.cancel, inbox.poke, clock)
        self._wishes = Wishes(
            device=device,
            slots=self._slots,
            store=store,
            trust=trust,
            moves=self._moves,
            steps=self._steps,
            end=self._end,
            ending=lambda: inbox.closed,
            reply=reply,
            restart=restart,
            refuse=self._refuse,
            state=state,
            now=now,
        )
        self._left_over = set(self._slots)
        self._ended: tuple[Record, Event] | None = None
        self._news: bytes | None = None
        self.activity = Activity()
        self._group = ThreadGroup()

    def start(self) -> None:
        """Begin: go on with what was under way, and take what arrives."""
        self._group.start("updater", self._run)

    def cancel(self) -> None:
        """Begin nothing more, and end the step that is under way; returns at once."""
        self._inbox.close()

    def close(self, timeout_s: float) -> bool:
        """Cancel, and wait.

        Returns:
            False if something is still being done after `timeout_s`.
        """
        self.cancel()
        return self._group.wait(timeout_s)

    def _run(self) -> None:
        while not self._inbox.closed:
            with self.activity:
                stallpoint.hit("updater")
                self._turn()
            self._inbox.wait(LOOK_S if self._trouble is None else TROUBLE_S)
        self._steps.break_off(Stopped())
        while not self._steps.wait(AGAIN_S):
            self._steps.look()
        self._guarded(self._finish_step)
        self.activity.rest()

    def _turn(self) -> None:
        """One thing after the other; what stands in the way of one need not be in another's."""
        self._trouble = None
        self._steps.look()
        self._guarded(self._finish_step)
        for slot in sorted(self._left_over):
            self._guarded(self._recover, slot)
        arrived = self._inbox.take()
        # Kept until it was looked at: the broker sends it once a connection.
        self._news = arrived.trust or self._news
        if arrived.assignment is not None:
            self._assignments.arrived(arrived.assignment)
        if arrived.settings is not None:
            self._desired.arrived(arrived.settings)
        self._guarded(self._refresh)
        for envelope in arrived.commands:
            self._guarded(self._wishes.hear, envelope)
        self._guarded(self._desired.look)
        self._guarded(self._wishes.look)
        self._guarded(self._consider)
        self._guarded(self._begin_step)
        self._guarded(self._reporter.send)
        self._tell_trouble(self._trouble)

    def _guarded(self, act: Callable[..., None], *args: object) -> None:
        """What goes wrong ends neither updates nor what serves; it is told, and tried again."""
        # Each has the time of a stage for itself: a turn may switch the models of several slots.
        self.activity.mark()
        try:
            act(*args)
        except UpdateCancelled:
            # The agent ends; it is begun again at the next start.
            return
        except (StoreError, KeyStoreError) as error:
            self._note_trouble(str(error), trace=False)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end updates for good
            self._note_trouble(f"internal error: {error!r}", trace=True)

    def _note_trouble(self, text: str, *, trace: bool) -> None:
        self._trouble = self._trouble or text
        self._quiet.say(logging.ERROR, "state", text, trace=trace)
        self._teller.refused("state", text)

    def _recover(self, slot: str) -> None:
        self._moves.recover(slot)
        self._left_over.discard(slot)

    def _refresh(self) -> None:
        message, self._news = self._news, None
        if message is None:
            return
        try:
            self._trust.refresh(message)
        except StoreError:
            self._news = message
            raise
        except BundleError as error:
            self._refuse("trust message", error)
            return
        self._assignments.trust_changed()
        self._desired.trust_changed()

    def _end(self, record: Record, event: Failed) -> bool:
        """End a record's update; False if its step has to end first."""
        if self._ended is not None and self._ended[0].slot == record.slot:
            # Its outcome could not be saved yet; it ends otherwise now.
            self._ended = (self._ended[0], event)
            return False
        running = self._steps.record
        if running is not None and running.slot == record.slot:
            self._steps.break_off(event)
            return False
        self._moves.move(record, event)
        return True

    def _refuse(self, what: str, error: AgentError) -> None:
        self._quiet.say(logging.WARNING, what, f"{what} refused: {error}")
        self._teller.refused(what, str(error))

    def _consider(self) -> None:
        for assignment, envelope in self._assignments.due():
            self._take_up(assignment, envelope)

    def _take_up(self, assignment: Assignment, envelope: bytes) -> None:
        record = self._store.record(assignment.slot)
        replaced = Failed(f"assignment {assignment.counter} took its place", blame=False)
        if not record.resting and not self._end(record, replaced):
            # It is taken up when the step has ended.
            return
        offered = Offered(
            campaign=assignment.campaign,
            counter=assignment.counter,
            digest=assignment.sha256,
            target=assignment.target,
            release_counter=assignment.release_counter,
            assignment=envelope,
            grant=assignment.grant.encode(),
        )
        self._moves.move(self._store.record(assignment.slot), offered)
        self._assignments.taken(assignment.slot)

    def _finish_step(self) -> None:
        # Kept until it is saved: a full disk must not have a stage done again.
        self._ended = self._ended or self._steps.take()
        if self._ended is not None:
            self._moves.move(*self._ended)
            self._ended = None

    def _begin_step(self) -> None:
        busy = self._steps.record is not None or self._ended is not None
        if busy or self._inbox.closed or self._store.paused():
            return
        for slot in sorted(self._slots - self._left_over):
            record = self._store.record(slot)
            if not record.resting:
                self._steps.start(record, self._course.limit_s(record))
                return
