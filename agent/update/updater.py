"""Receives updates and carries them through, one at a time: the shell around the pure parts.

One thread decides: it hears what has arrived, verifies it, and moves records. Another carries out
the step that is under way (`agent.update.steps`), so that a newer assignment, a command or the end
of the agent is heard while a bundle is fetched for hours or an engine is built for minutes. Nothing
that is not verified breaks a step off, or is kept.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING

from agent.bundle.documents import ASSIGNMENT, Assignment
from agent.bundle.dsse import verify
from agent.errors import (
    AgentError,
    BundleError,
    KeyStoreError,
    RollbackError,
    SignatureError,
    StoreError,
)
from agent.threads import ThreadGroup
from agent.update.failpoints import hit
from agent.update.machine import (
    Failed,
    Offered,
    Stopped,
    advance,
    resume,
)
from agent.update.offer import check_approvals, check_offer, check_target
from agent.update.orders import encode_reply, read_command
from agent.update.record import Record, State
from agent.update.requests import done, waiting
from agent.update.steps import StepRunner
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from agent.bundle.documents import Command
    from agent.bundle.trust import Trust
    from agent.update.course import Course
    from agent.update.inbox import Inbox
    from agent.update.machine import Event
    from agent.update.ports import Candidate, Proofs
    from agent.update.reporting import Reporter
    from agent.update.store import Store
    from agent.update.telling import Teller

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often the thread looks for what nobody tells it: deadlines, requests of the command line,
reports that can be sent again."""

AGAIN_S = 0.2
"""While the agent ends, the step under way is told to end as often."""

CARRIED_OUT = "this command was carried out before"


class Updater:
    """See the module.

    Args:
        device: device id.
        slots: names of the model slots.
        store: what is remembered; used by this object's thread alone once it has started.
        trust: what the release keys, directors and operators sign.
        course: the effects of the states.
        proofs: switches models.
        teller: tells how it goes.
        reporter: reports how it ended.
        inbox: what arrives.
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
        reply: Callable[[str, bytes], None],
        restart: Callable[[], None],
        state: Path,
        active: dict[str, Candidate],
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        trouble: Callable[[str | None], None] = lambda _reason: None,
    ) -> None:
        self._device = device
        self._trouble = trouble
        self._slots = frozenset(slots)
        self._store = store
        self._trust = trust
        self._course = course
        self._proofs = proofs
        self._teller = teller
        self._reporter = reporter
        self._inbox = inbox
        self._reply = reply
        self._restart = restart
        self._state = state
        self._active = active
        self._now = now
        self._steps = StepRunner(course.step, proofs.cancel, inbox.poke, clock)
        self._ended: tuple[Record, Event] | None = None
        self._news: bytes | None = None
        self._waiting: bytes | None = None
        self._doubted: bytes | None = None
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
        for slot in sorted(self._slots):
            self._guarded(self._recover, slot)
        while not self._inbox.closed:
            self._guarded(self._turn)
            self._inbox.wait(LOOK_S)
        self._steps.break_off(Stopped())
        while not self._steps.wait(AGAIN_S):
            self._steps.look()
        self._guarded(self._finish_step)

    def _guarded(self, act: Callable[..., None], *args: object) -> None:
        """What is remembered, or our own key, cannot be used: what serves goes on serving."""
        try:
            act(*args)
        except (StoreError, KeyStoreError) as error:
            log.error("updates: %s", error)  # noqa: TRY400 - told, not a crash
            self._teller.refused("state", str(error))
            self._trouble(str(error))
        else:
            self._trouble(None)

    def _recover(self, slot: str) -> None:
        record = self._store.record(slot)
        again = resume(record)
        self._concluded(record if again == record else self._store.save(again))

    def _turn(self) -> None:
        self._steps.look()
        self._finish_step()
        arrived = self._inbox.take()
        # Kept until they were looked at: the broker sends them once a connection.
        self._news = arrived.trust or self._news
        self._waiting = arrived.assignment or self._waiting
        if self._news is not None:
            self._refresh(self._news)
            self._news = None
        for envelope in arrived.commands:
            self._hear_command(envelope)
        self._obey_local()
        waiting = self._waiting
        if waiting is not None:
            try:
                self._consider(waiting)
            except StoreError:
                self._waiting = waiting
                raise
        self._begin_step()
        self._reporter.send()

    def _refresh(self, message: bytes) -> None:
        try:
            self._trust.refresh(message)
        except BundleError as error:
            self._refuse("trust message", error)
            return
        self._waiting = self._waiting or self._doubted

    def _hear_command(self, envelope: bytes) -> None:
        try:
            command = read_command(
                envelope,
                self._trust.operator_keys()[0],
                device=self._device,
                slots=self._slots,
                now=self._now(),
            )
        except BundleError as error:
            self._refuse("command", error)
            return
        reason = ""
        try:
            self._obey(command)
        except StoreError:
            raise
        except AgentError as error:
            reason = str(error)
            self._refuse("command", error)
        answer = encode_reply(command, done=not reason, reason=reason, ts=self._now())
        self._reply(command.nonce, answer)

    def _obey(self, command: Command) -> None:
        nonce = (command.nonce, float(command.expires))
        if command.verb == "rollback":
            self._roll_back(command.slot, "an operator asked for it", nonce)
            return
        if not self._store.use_nonce(*nonce):
            raise RollbackError(CARRIED_OUT)
        if command.verb == "restart":
            self._restart()
        else:
            self._store.set_paused(command.verb == "pause")

    def _obey_local(self) -> None:
        """What `vigia update rollback` on the device asks for; not while a newer one is proven."""
        for found in waiting(self._state):
            request = found.request
            if request is not None and not self._store.record(request.slot).resting:
                continue
            active = None if request is None else self._store.active(request.slot)
            try:
                if request is not None and active is not None and active.digest == request.digest:
                    self._roll_back(request.slot, request.reason, None)
            except StoreError:
                raise
            except AgentError as error:
                self._refuse("request", error)
            done(found)

    def _roll_back(self, slot: str, reason: str, nonce: tuple[str, float] | None) -> None:
        """Have what was there before serve again; an update that is under way is given up."""
        record = self._store.record(slot)
        if not record.resting:
            if nonce is not None and not self._store.use_nonce(*nonce):
                raise RollbackError(CARRIED_OUT)
            self._end(record, Failed(reason, blame=True))
            return
        refusal = self._store.rollback_refusal(slot)
        if refusal is not None:
            raise RollbackError(refusal)
        previous = self._store.previous(slot)
        # Opened before anything is decided: what cannot be opened is nothing to go back to.
        candidate = None if previous is None else self._course.open_installed(previous)
        record = self._store.roll_back(slot, reason, nonce=nonce)
        self._serve(slot, candidate)
        self._concluded(record)

    def _end(self, record: Record, event: Failed) -> bool:
        """End a record's update; False if its step has to end first."""
        running = self._steps.record
        if running is not None and running.slot == record.slot:
            self._steps.break_off(event)
            return False
        self._move(record, event)
        return True

    def _refuse(self, what: str, error: AgentError) -> None:
        log.warning("updates: %s refused: %s", what, error)
        self._teller.refused(what, str(error))

    def _consider(self, envelope: bytes) -> None:
        """Take up an assignment, or say why not; one that comes too early goes on waiting."""
        self._waiting = self._doubted = None
        try:
            keys, threshold = self._trust.director_keys()
            assignment = verify(envelope, ASSIGNMENT, Assignment, keys, threshold)
        except SignatureError as error:
            # The metadata that names its signer may come later.
            self._doubted = envelope
            self._refuse("assignment", error)
            return
        except BundleError as error:
            self._refuse("assignment", error)
            return
        try:
            record = self._store.record(assignment.slot) if assignment.slot in self._slots else None
            if record is not None and record.assignment == envelope:
                return
            now = self._now()
            last = self._store.last_counter(assignment.slot)
            check_offer(
                assignment, device=self._device, slots=self._slots, last_counter=last, now=now
            )
            needed = self._trust.policy().approvals
            check_approvals(assignment, self._trust.operator_keys()[0], needed)
        except BundleError as error:
            self._refuse("assignment", error)
            return
        try:
            self._trust.check_fresh()
            check_target(assignment, self._trust.target(assignment.target))
        except BundleError as error:
            # The metadata may come after the assignment.
            log.info("an assignment waits for newer metadata: %s", error)
            self._waiting = envelope
            return
        if now < assignment.not_before:
            self._waiting = envelope
            return
        self._take_up(assignment, envelope)

    def _take_up(self, assignment: Assignment, envelope: bytes) -> None:
        record = self._store.record(assignment.slot)
        replaced = Failed(f"assignment {assignment.counter} took its place", blame=False)
        if not record.resting and not self._end(record, replaced):
            # It is taken up when the step has ended.
            self._waiting = envelope
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
        self._move(self._store.record(assignment.slot), offered)

    def _finish_step(self) -> None:
        # Kept until it is saved: a full disk must not have a stage done again.
        self._ended = self._ended or self._steps.take()
        if self._ended is not None:
            self._move(*self._ended)
            self._ended = None

    def _begin_step(self) -> None:
        if self._steps.record is not None or self._inbox.closed or self._store.paused():
            return
        for slot in sorted(self._slots):
            record = self._store.record(slot)
            if not record.resting:
                self._steps.start(record, self._course.limit_s(record))
                return

    def _move(self, record: Record, event: Event) -> None:
        following = self._store.save(advance(record, event))
        candidate = self._course.candidate(record.slot)
        if following.state is State.ROLLED_BACK:
            self._serve(record.slot, self._active.get(record.slot))
        elif following.state is State.COMMITTED and record.state is State.CANARY and candidate:
            hit("C8.committed")
            self._active[record.slot] = candidate
            self._switch(record.slot, functools.partial(self._proofs.commit, candidate))
        self._concluded(following)

    def _serve(self, slot: str, candidate: Candidate | None) -> None:
        """Switch back, after that was saved: a crash in between makes the same switch."""
        hit("C9.switching")
        self._switch(slot, functools.partial(self._proofs.revert, slot, candidate))
        if candidate is None:
            self._active.pop(slot, None)
        else:
            self._active[slot] = candidate

    def _switch(self, slot: str, act: Callable[[], None]) -> None:
        """What is to serve was saved; a switch that fails is made again by the next start."""
        try:
            act()
        except (AgentError, EngineError) as error:
            log.error("slot %s: switching the model failed: %s", slot, error)  # noqa: TRY400 - told
            self._teller.refused("switch", str(error))

    def _concluded(self, record: Record) -> None:
        reason = f": {record.reason}" * bool(record.reason)
        log.info("slot %s: %s %s%s", record.slot, record.state.value, record.target, reason)
        self._teller.record(record)
        if record.resting:
            self._course.forget(record.slot, disk=self._store.kept())
