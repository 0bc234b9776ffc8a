"""What people want of updates: by operators' signed commands, or at the device's command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import AgentError, BundleError, RollbackError, StoreError
from agent.update.machine import Failed, Stopped
from agent.update.orders import encode_reply, read_command
from agent.update.record import State
from agent.update.requests import done, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from agent.bundle.documents import Command
    from agent.bundle.trust import Trust
    from agent.update.moves import Moves
    from agent.update.record import Record
    from agent.update.steps import StepRunner
    from agent.update.store import Store

NETWORK = frozenset({State.OFFERED, State.TRUSTED, State.FETCHING})
"""States whose step can be broken off without any loss."""

CARRIED_OUT = "this command was carried out before"


class Wishes:
    """For one thread.

    Args:
        device: device id.
        slots: names of the model slots.
        store: what is remembered.
        trust: who are the operators.
        moves: rolls back.
        steps: the step that is under way.
        end: ends a record's update; false if its step has to end first.
        ending: true once the agent ends.
        reply: publishes the answer to a command: topic level, payload.
        restart: ends the agent, for its service manager to start it anew.
        refuse: tells what was refused, and why.
        state: the state folder, where the command line leaves its requests.
        now: seconds since the epoch, never below the time floor.
    """

    def __init__(
        self,
        *,
        device: str,
        slots: Collection[str],
        store: Store,
        trust: Trust,
        moves: Moves,
        steps: StepRunner,
        end: Callable[[Record, Failed], bool],
        ending: Callable[[], bool],
        reply: Callable[[str, bytes], None],
        restart: Callable[[], None],
        refuse: Callable[[str, AgentError], None],
        state: Path,
        now: Callable[[], float],
    ) -> None:
        self._device = device
        self._slots = slots
        self._store = store
        self._trust = trust
        self._moves = moves
        self._steps = steps
        self._end = end
        self._ending = ending
        self._reply = reply
        self._restart = restart
        self._refuse = refuse
        self._state = state
        self._now = now

    def hear(self, envelope: bytes) -> None:
        """Obey a command, or refuse it; whoever has the right to command gets an answer.

        Raises:
            StoreError: it cannot be judged.
        """
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
        except AgentError as error:
            reason = str(error)
            self._refuse("command", error)
        answer = encode_reply(command, done=not reason, reason=reason, ts=self._now())
        self._reply(command.nonce, answer)

    def look(self) -> None:
        """Do what `vigia update rollback` on the device asks for; not while a newer one is proven.

        Raises:
            StoreError: it cannot be done now; the request stays.
        """
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
            self._pause(paused=command.verb == "pause")

    def _pause(self, *, paused: bool) -> None:
        self._store.set_paused(paused)
        running = self._steps.record
        if paused and running is not None and running.state in NETWORK:
            # What is proven comes to its end; what only loads the network rests at once.
            self._steps.break_off(Stopped())

    def _roll_back(self, slot: str, reason: str, nonce: tuple[str, float] | None) -> None:
        """Have what was there before serve again; an update that is under way is given up."""
        record = self._store.record(slot)
        if record.resting:
            self._moves.roll_back(slot, reason, nonce, self._ending)
            return
        if nonce is not None and not self._store.use_nonce(*nonce):
            raise RollbackError(CARRIED_OUT)
        self._end(record, Failed(reason, blame=True))
