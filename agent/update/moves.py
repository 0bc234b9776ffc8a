"""Steps of records, with what follows from them: models are switched, it is told, and tidied up.

A step is saved before the models are switched, so that whatever happens then, the next start serves
the right one.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from agent.errors import AgentError, RollbackError, StoreError
from agent.update.failpoints import hit
from agent.update.machine import Failed, advance, resume
from agent.update.record import State
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.update.course import Course
    from agent.update.machine import Event
    from agent.update.ports import Candidate, Proofs
    from agent.update.quietlog import QuietLog
    from agent.update.record import Record
    from agent.update.store import Store
    from agent.update.telling import Teller

log = logging.getLogger(__name__)


class Moves:
    """For one thread.

    Args:
        store: what is remembered.
        course: holds what is open.
        proofs: switches models.
        teller: tells how it goes.
        active: what is committed and open, by slot; kept true here.
        quiet: for what goes wrong again and again.
    """

    def __init__(
        self,
        *,
        store: Store,
        course: Course,
        proofs: Proofs,
        teller: Teller,
        active: dict[str, Candidate],
        quiet: QuietLog,
    ) -> None:
        self._store = store
        self._course = course
        self._proofs = proofs
        self._teller = teller
        self._active = active
        self._quiet = quiet

    def recover(self, slot: str) -> None:
        """Go on with what the last run of the agent has left.

        Raises:
            StoreError: it cannot be read or saved; nothing has changed.
        """
        record = self._store.record(slot)
        again = resume(record)
        self._concluded(record if again == record else self._store.save(again))

    def move(self, record: Record, event: Event) -> None:
        """Save what a record becomes by an event, and do what follows; may be done again.

        Raises:
            StoreError: it cannot be saved. What has failed on trial does not go on serving all the
                same: the row says that it was on trial, and whoever reads that serves the other.
        """
        try:
            following = self._store.save(advance(record, event))
        except StoreError:
            if record.state is State.CANARY and isinstance(event, Failed):
                self._serve(record.slot, self._active.get(record.slot))
            raise
        candidate = self._course.candidate(record.slot)
        if following.state is State.ROLLED_BACK:
            self._serve(record.slot, self._active.get(record.slot))
        elif following.state is State.COMMITTED and record.state is State.CANARY and candidate:
            hit("C8.committed")
            self._active[record.slot] = candidate
            self._switch(record.slot, functools.partial(self._proofs.commit, candidate))
        self._concluded(following)

    def roll_back(
        self,
        slot: str,
        reason: str,
        nonce: tuple[str, float] | None,
        ending: Callable[[], bool],
    ) -> None:
        """Have what was there before the last commit serve again; nothing is under way.

        Args:
            slot: of which slot.
            reason: who asked and why, for people.
            nonce: of the command that asked for it, and when that expires.
            ending: true once the agent ends.

        Raises:
            AgentError: there is nothing to go back to, or it cannot be opened or saved; nothing has
                changed.
            UpdateCancelled: the agent ends; nothing has changed.
        """
        refusal = self._store.rollback_refusal(slot)
        if refusal is not None:
            raise RollbackError(refusal)
        previous = self._store.previous(slot)
        # Opened before anything is decided: what cannot be opened is nothing to go back to.
        candidate = None if previous is None else self._course.open_installed(previous, ending)
        record = self._store.roll_back(slot, reason, nonce=nonce)
        self._serve(slot, candidate)
        self._concluded(record)

    def _serve(self, slot: str, candidate: Candidate | None) -> None:
        """Switch back: a crash before it makes the same switch."""
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
            text = f"slot {slot}: switching the model failed: {error}"
            self._quiet.say(logging.ERROR, "switch", text)
            self._teller.refused("switch", str(error))

    def _concluded(self, record: Record) -> None:
        reason = f": {record.reason}" * bool(record.reason)
        log.info("slot %s: %s %s%s", record.slot, record.state.value, record.target, reason)
        self._teller.record(record)
        if not record.resting:
            return
        try:
            self._course.forget(record.slot, disk=self._store.kept())
        except StoreError as error:
            # What is left over is tried again after the next update.
            self._quiet.say(logging.WARNING, "tidying", str(error))
            self._teller.refused("tidying", str(error))
