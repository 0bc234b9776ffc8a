"""Updates in one run of the agent: what they have brought serves, and new ones are received.

Where the state of updates cannot be used, what was active last is served from its read-only copy
and updates are refused; where the device is not enrolled, the configured models serve. Neither ever
keeps the agent from running.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from agent.bundle.keys import open_keys
from agent.errors import AgentError, BundleError, KeyStoreError, StoreError
from agent.memory import no_core_dumps
from agent.update import fallback
from agent.update.memoryfolder import MemoryFolder
from agent.update.opening import Opener
from agent.update.preflight import BYTES_PER_MB
from agent.update.proofs import PipelineProofs
from agent.update.staging import FOLDER
from agent.update.store import Store
from agent.updatereceiver import Receiver
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.update.ports import Candidate
    from agent.update.record import Installed
    from agent.updatereceiver import Surroundings

log = logging.getLogger(__name__)


class Updates:
    """Serves what updates have brought, and receives new ones.

    Args:
        around: the agent.
    """

    def __init__(self, around: Surroundings) -> None:
        self._refused: str | None = None
        self._trouble: str | None = None
        self._unopened: dict[str, str] = {}
        self._active: dict[str, Candidate] = {}
        self._told: str | None = None
        self._around = around
        self._memory: MemoryFolder | None = None
        self._receiver: Receiver | None = None

    @property
    def reason(self) -> str | None:
        """Why updates are refused or stand still, or what serves is not what was committed."""
        # What was brought anew since is whole.
        unopened = [why for slot, why in self._unopened.items() if slot not in self._active]
        reasons = [self._refused, *unopened, self._trouble]
        return "; ".join(reason for reason in reasons if reason) or None

    def restore(self) -> None:
        """Have what was committed be each slot's model, before models are loaded.

        Never raises for the state of updates, which is told by `reason`.
        """
        around = self._around
        try:
            no_core_dumps()
            keys = open_keys(around.settings.keys, around.state)
            self._memory = MemoryFolder(max_bytes=around.settings.max_bundle_mb * BYTES_PER_MB)
            opener = Opener(around.device, keys, self._memory, around.state / FOLDER)
            proofs = PipelineProofs(around.pipeline, around.slots, around.builder, self._memory)
        except (KeyStoreError, StoreError) as error:
            self._refuse(error)
            return
        store = self._open_store()
        self._install(self._installed(store), opener, proofs)
        self._told = self.reason
        if store is None:
            return
        try:
            self._receiver = Receiver(
                around, store, keys, opener, proofs, self._active, self._note_turn
            )
        except (BundleError, StoreError) as error:
            self._refuse(error)
            store.close()

    def start(self) -> None:
        """Receive updates."""
        if self._receiver is not None:
            self._receiver.start()

    def cancel(self) -> None:
        """Begin nothing more; returns at once."""
        if self._receiver is not None:
            self._receiver.cancel()

    def close(self, timeout_s: float) -> None:
        """End, and remove what lies in memory."""
        try:
            if self._receiver is not None:
                self._receiver.close(timeout_s)
        finally:
            if self._memory is not None:
                self._memory.close()

    @property
    def turn_s(self) -> float | None:
        """How long the updater has been at its turn; None while it waits."""
        return None if self._receiver is None else self._receiver.turn_s

    def under_way(self) -> list[str]:
        """Slots and what their update is at, for people."""
        return [] if self._receiver is None else self._receiver.under_way()

    def counters(self) -> dict[str, object] | None:
        """Plain values for telemetry; None while updates are refused."""
        return None if self._receiver is None else self._receiver.counters()

    def _refuse(self, error: Exception) -> None:
        self._refused = f"updates are refused: {error}"
        log.error("%s", self._refused)

    def _note_turn(self, error: str | None) -> None:
        self._trouble = None if error is None else f"updates stand still: {error}"
        if self.reason != self._told:
            self._told = self.reason
            self._around.changed()

    def _open_store(self) -> Store | None:
        try:
            return Store(self._around.state, time.time)
        except StoreError as error:
            self._refuse(error)
            return None

    def _installed(self, store: Store | None) -> Iterable[Installed]:
        try:
            if store is None:
                return fallback.read(self._around.state)
            found = (store.active(slot) for slot in self._around.slots)
            return [installed for installed in found if installed is not None]
        except StoreError as error:
            self._refuse(error)
            return ()

    def _install(
        self, installed: Iterable[Installed], opener: Opener, proofs: PipelineProofs
    ) -> None:
        """Open what is active; a slot whose bundle cannot be opened runs its configured model."""
        for item in installed:
            if item.slot not in self._around.slots:
                continue
            try:
                candidate = opener.installed(item)
                proofs.install(candidate)
            except (AgentError, EngineError) as error:
                why = f"slot {item.slot}: {item.version} cannot be opened: {error}"
                log.error("%s; the configured model serves", why)  # noqa: TRY400 - told
                self._unopened[item.slot] = why
            else:
                self._active[item.slot] = candidate
