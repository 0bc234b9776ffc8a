"""What the director wants of this device: what is to be begun now, and what waits.

An assignment waits, in memory, for the metadata that knows its bundle, for its time, and for the
end of a step. It is judged anew at every look, since who may assign can have changed meanwhile.
Nothing waits that is not verified, but for the newest one whose signer is not known: the metadata
that names them may come later.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.bundle.documents import ASSIGNMENT, Assignment
from agent.bundle.dsse import verify
from agent.errors import BundleError, SignatureError, StoreError
from agent.update.offer import check_approvals, check_offer, check_target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.bundle.trust import Trust
    from agent.errors import AgentError
    from agent.update.quietlog import QuietLog
    from agent.update.store import Store

WHAT = "assignment"


class Assignments:
    """For one thread.

    Args:
        device: device id.
        slots: names of the model slots.
        store: what was assigned before.
        trust: who may assign, and which bundles there are.
        now: seconds since the epoch, never below the time floor.
        refuse: tells what was refused, and why.
        quiet: where it is logged what waits.
    """

    def __init__(
        self,
        *,
        device: str,
        slots: Collection[str],
        store: Store,
        trust: Trust,
        now: Callable[[], float],
        refuse: Callable[[str, AgentError], None],
        quiet: QuietLog,
    ) -> None:
        self._device = device
        self._slots = slots
        self._store = store
        self._trust = trust
        self._now = now
        self._refuse = refuse
        self._quiet = quiet
        self._new: bytes | None = None
        self._doubted: bytes | None = None
        self._waiting: dict[str, tuple[int, bytes]] = {}

    def arrived(self, envelope: bytes) -> None:
        """Take what has arrived.

        An empty message takes back what was not begun yet. It is signed by nobody, but whoever can
        send it could as well have kept the assignment back.
        """
        self._doubted = None
        if envelope:
            self._new = envelope
        else:
            self._new = None
            self._waiting.clear()

    def trust_changed(self) -> None:
        """Look again at what nobody known had signed."""
        self._new = self._new or self._doubted

    def due(self) -> tuple[tuple[Assignment, bytes], ...]:
        """What is to be begun now, each with its envelope; it waits on until it is `taken`.

        Raises:
            StoreError: it cannot be told; nothing is forgotten.
        """
        new, self._new = self._new, None
        if new is not None:
            try:
                self._hear(new)
            except StoreError:
                self._new = new
                raise
        found = []
        for slot in sorted(self._waiting):
            assignment = self._ready(slot)
            if assignment is not None:
                found.append((assignment, self._waiting[slot][1]))
        return tuple(found)

    def taken(self, slot: str) -> None:
        """What was due in a slot was begun."""
        self._waiting.pop(slot, None)

    def _hear(self, envelope: bytes) -> None:
        assignment = self._judged(envelope)
        if assignment is None:
            return
        before = self._waiting.get(assignment.slot)
        # An older one can come again, but does not take the place of a newer one.
        if before is None or before[0] < assignment.counter:
            self._waiting[assignment.slot] = (assignment.counter, envelope)

    def _ready(self, slot: str) -> Assignment | None:
        _, envelope = self._waiting[slot]
        assignment = self._judged(envelope)
        if assignment is None:
            self.taken(slot)
            return None
        try:
            self._trust.check_fresh()
            check_target(assignment, self._trust.target(assignment.target))
        except BundleError as error:
            # The metadata may come after the assignment.
            text = f"an assignment waits for newer metadata: {error}"
            self._quiet.say(logging.INFO, "waiting", text)
            return None
        return assignment if self._now() >= assignment.not_before else None

    def _judged(self, envelope: bytes) -> Assignment | None:
        """An assignment that may be begun in its time; None, and told, if it may not."""
        by_keys = True
        try:
            keys, threshold = self._trust.director_keys()
            assignment = verify(envelope, ASSIGNMENT, Assignment, keys, threshold)
            # The retained message comes again at every connection.
            if self._store.record(assignment.slot).assignment == envelope:
                return None
            by_keys = False
            last = self._store.last_counter(assignment.slot)
            check_offer(
                assignment,
                device=self._device,
                slots=self._slots,
                last_counter=last,
                now=self._now(),
            )
            by_keys = True
            needed = self._trust.policy().approvals
            check_approvals(assignment, self._trust.operator_keys()[0], needed)
        except BundleError as error:
            if by_keys and isinstance(error, SignatureError):
                self._doubted = envelope
            self._refuse(WHAT, error)
            return None
        return assignment
