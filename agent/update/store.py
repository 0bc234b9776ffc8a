"""What the life cycle of updates remembers: one writer, whole transactions, everything bounded.

A record and everything that follows from it are one transaction: with an outcome, that is what is
active and what was before, the floor, the quarantine, the history and the report to be sent.

The floor: a committed release counter is the floor of its family. A new assignment below it is
refused (`agent.update.preflight`), on every slot and for ever. The one way to something older is a
rollback to the bundle that was replaced by the last commit and is still kept. It does not lower the
floor, and is refused where the newer bundle's `min_release_counter` is above the older one's
release counter: so the release keys can bar the way back to a release that must not run again.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.bundle.strict import MAX_WALL_S
from agent.errors import RollbackError, StoreError
from agent.update import fallback
from agent.update.database import Database
from agent.update.failpoints import hit
from agent.update.machine import EDGES, IllegalTransition, Rollback, advance
from agent.update.outcome import conclude
from agent.update.reader import Reader
from agent.update.record import OUTCOMES, Record, State, record_of
from agent.update.rows import RECORD_COLUMNS, counter_text, put, record_values
from agent.update.trustmirror import TrustMirror

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.update.record import Installed

log = logging.getLogger(__name__)

MAX_NONCES = 1024


class Store(Reader):
    """The state of updates, to be written by one process; from any thread.

    Args:
        folder: state folder; made with mode 0700 if it is not there.
        now: seconds since the epoch.

    Attributes:
        trust: the signed metadata and the time floor.

    Raises:
        StoreError: it is damaged, read-only, full, newer, or another process has it. Nothing was
            changed; `agent.update.fallback.read` says what is to serve.
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot make it: {error.strerror or error}") from error
        self._database = Database(folder, known=fallback.exists(folder))
        super().__init__(self._database)
        self.trust = TrustMirror(self._database)
        try:
            self._renew_fallback()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        self._database.close()

    def save(
        self,
        record: Record,
        *,
        report: bytes | None = None,
        nonce: tuple[str, float] | None = None,
    ) -> Record:
        """Save the step that `agent.update.machine` made, with what follows from it.

        Saving the same step again changes nothing.

        Args:
            record: the step after the one that was saved last.
            report: of an outcome, if it could be signed already; see `unsigned_reports`.
            nonce: of the command that asked for it, and when that expires: used up with it.

        Returns:
            The record with its times.

        Raises:
            StoreError: it could not be written; nothing has changed.
            RollbackError: the nonce was used before, or the way back is barred.
            IllegalTransition: it is not the step after: a mistake in the program.
        """
        with self._database.transaction() as connection:
            before = self.record(record.slot)
            if record.same_step(before):
                return before
            self._check_follows(before, record)
            if nonce is not None and not self.use_nonce(*nonce):
                raise RollbackError("this command was carried out before")
            record = self._stamped(before, record)
            put(connection, "records", RECORD_COLUMNS, record_values(record))
            if record.state is State.OFFERED:
                values = (record.slot, counter_text(record.counter))
                put(connection, "counters", ("slot", "counter"), values)
            if record.state in OUTCOMES:
                conclude(connection, self, record, report)
            hit("save.inside")
        hit("save.done")
        if record.state in OUTCOMES:
            self._write_fallback()
        return record

    def roll_back(
        self, slot: str, reason: str, *, nonce: tuple[str, float] | None = None
    ) -> Record:
        """Have an operator's wish done: what the last commit replaced is active again.

        The bundle that was active is never tried again, and the floor stays. Do this before the
        switch: whatever happens then, the next start serves the right model.

        Args:
            slot: of which slot; nothing may be under way there.
            reason: who asked and why, for people.
            nonce: as in `save`.

        Returns:
            The record, in ROLLED_BACK.

        Raises:
            RollbackError: there is nothing to go back to, or the way is barred.
            StoreError: it could not be written; nothing has changed.
        """
        with self._database.transaction():
            refusal = self.rollback_refusal(slot)
            active, record = self.active(slot), self.record(slot)
            if refusal is not None or active is None:
                raise RollbackError(refusal)
            if record.state is not State.COMMITTED:
                record = record_of(active)
            return self.save(advance(record, Rollback(reason)), nonce=nonce)

    def use_nonce(self, nonce: str, expires: float) -> bool:
        """Use a command's nonce up; False if it was used before.

        Nonces are forgotten once the time floor has passed their expiry: from then on no clock can
        make their command valid again.

        Raises:
            StoreError: too many commands are valid at once, or it cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM nonces WHERE expires < ?", (self.trust.time_floor(),))
            if self._rows.rows("SELECT 1 FROM nonces WHERE nonce = ?", (nonce,)):
                return False
            ((count,),) = self._rows.rows("SELECT count(*) FROM nonces")
            if count >= MAX_NONCES:
                raise StoreError(
                    f"{count} commands are remembered already; wait until the controller's next "
                    "signed time lets the oldest be forgotten"
                )
            connection.execute("INSERT INTO nonces VALUES (?, ?)", (nonce, expires))
        return True

    def report_signed(self, report: int, envelope: bytes) -> None:
        """Keep a report's signed form, so that it is sent with the same bytes each time.

        Raises:
            StoreError: it cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("UPDATE reports SET envelope = ? WHERE id = ?", (envelope, report))

    def report_sent(self, report: int) -> None:
        """The broker has a report; it is not sent again.

        Raises:
            StoreError: it cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM reports WHERE id = ?", (report,))

    def set_paused(self, paused: bool) -> None:
        """Remember whether an operator has paused updates.

        Raises:
            StoreError: it cannot be written.
        """
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM settings WHERE name = 'paused'")
            if paused:
                connection.execute("INSERT INTO settings VALUES ('paused', '1')")

    def see_settings(self, counter: int, digest: str) -> None:
        """Remember the newest signed settings, so that no older ones are ever taken again.

        Args:
            counter: of them.
            digest: SHA-256 of the envelope, hexadecimal.

        Raises:
            StoreError: it cannot be written.
        """
        with self._database.transaction() as connection:
            put(connection, "settings", ("name", "value"), ("settings_seen", f"{counter}:{digest}"))

    def _check_follows(self, before: Record, record: Record) -> None:
        active = self.active(record.slot)
        if record.state is State.OFFERED:
            follows = record.counter > self.last_counter(record.slot)
        elif record.state is State.ROLLED_BACK and before.resting:
            # An operator's: of what is active, whatever was tried and refused after it.
            follows = active is not None and active.counter == record.counter
            before = record_of(active) if active is not None else before
            refusal = self.rollback_refusal(record.slot)
            if refusal is not None:
                raise RollbackError(refusal)
        else:
            same = before.counter == record.counter
            follows = same and record.transitions == before.transitions + 1
        if not follows or (before.state, record.state) not in EDGES:
            raise IllegalTransition(
                f"slot {record.slot}: {record.state.value} of assignment {record.counter} does not "
                f"follow {before.state.value} of assignment {before.counter}"
            )

    def _stamped(self, before: Record, record: Record) -> Record:
        now = min(max(self._now(), 0.0), float(MAX_WALL_S))
        new = record.state is State.OFFERED
        started = now if new else record.started or before.started
        return replace(record, started=started, changed=now)

    def _all_active(self) -> tuple[Installed, ...]:
        slots = self._rows.rows("SELECT slot FROM installed WHERE place = 'active' ORDER BY slot")
        found = (self.active(slot) for (slot,) in slots)
        return tuple(installed for installed in found if installed is not None)

    def _renew_fallback(self) -> None:
        """After a power cut it can be one step behind; a damaged one is replaced."""
        active = self._all_active()
        try:
            same = {i.slot: (i.digest, i.counter) for i in fallback.read(self._folder)}
        except StoreError as error:
            if fallback.exists(self._folder):
                log.warning("%s; written anew from the state", error)
            same = None
        if same == {i.slot: (i.digest, i.counter) for i in active}:
            return
        if fallback.exists(self._folder):
            self._write_fallback()
        else:
            # Without one, a state that is lost later would not be missed.
            fallback.write(self._folder, active)

    def _write_fallback(self) -> None:
        # The step is saved; a copy that stays behind is renewed at the next start.
        try:
            fallback.write(self._folder, self._all_active())
        except StoreError as error:
            log.warning("%s", error)
