"""A device's life in any order: steps, stops, crashes, power cuts, rollbacks, on two slots."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agent.errors import RollbackError
from agent.update import fallback
from agent.update.machine import (
    MAX_CANARIES,
    MAX_TRANSITIONS,
    MAX_TRIALS,
    MAX_UNFINISHED_BUILDS,
    TABLE,
    Admitted,
    Failed,
    Stopped,
    Unchanged,
    advance,
    resume,
)
from agent.update.record import OUTCOMES, State
from agent.update.store import Store
from tests.fakes.updates import digest_of, offered, way

SLOTS = st.sampled_from(["a", "b"])
STRAIGHT = dict(zip([s for s in State if s.value != "IDLE"], way(1)[1:], strict=False))
"""State -> the event that leads on from it."""


class Life(RuleBasedStateMachine):
    """The store beside what must be true of it."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="vigia-life-"))
        self.number = 0
        self.counter = 0
        self.release = 0
        self.floor = 0
        self.ended = {}
        self.nonces = 0
        self.now = 1_800_000_000.0

    @initialize()
    def begin(self):
        self.folder = self.root / "0"
        self.store = Store(self.folder, lambda: self.now)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.root)

    def save(self, record):
        before = self.store.record(record.slot)
        saved = self.store.save(record)
        if saved != before and saved.state in OUTCOMES:
            self.note(saved)
        return saved

    def note(self, saved):
        key = (saved.slot, saved.counter, saved.state)
        assert key not in self.ended
        self.ended[key] = saved.release_counter

    @rule(slot=SLOTS, bundle=st.integers(1, 6))
    def offer(self, slot, bundle):
        record = self.store.record(slot)
        if not record.resting:
            record = self.save(advance(record, Failed("replaced", blame=False)))
        if bundle < self.store.floor("line"):
            return
        self.counter += 1
        self.save(advance(record, offered(self.counter, bundle=bundle)))

    @rule(slot=SLOTS, steps=st.integers(1, 9), least=st.integers(0, 6))
    def go_on(self, slot, steps, least):
        for _ in range(steps):
            record = self.store.record(slot)
            if record.resting:
                return
            event = STRAIGHT[record.state]
            if isinstance(event, Admitted):
                active = self.store.active(slot)
                same = active is not None and active.digest == record.digest
                event = Unchanged() if same else Admitted(min(least, record.release_counter))
            self.save(advance(record, event))

    @rule(slot=SLOTS, blame=st.booleans())
    def fail(self, slot, blame):
        record = self.store.record(slot)
        if (record.state, Failed) in TABLE:
            self.save(advance(record, Failed("bad", blame=blame)))

    @rule(slot=SLOTS)
    def undo(self, slot):
        active, previous = self.store.active(slot), self.store.previous(slot)
        refusal = self.store.rollback_refusal(slot)
        self.nonces += 1
        nonce = (f"{self.nonces:032x}", 2e9)
        if refusal is not None:
            with pytest.raises(RollbackError, match=re.escape(refusal)):
                self.store.roll_back(slot, "undone", nonce=nonce)
            assert self.store.active(slot) == active
            return
        self.note(self.store.roll_back(slot, "undone", nonce=nonce))
        assert self.store.active(slot) == previous
        assert self.store.quarantined(active.digest) is not None
        assert not self.store.use_nonce(*nonce)

    @rule()
    def stop_and_start(self):
        for slot in ("a", "b"):
            record = self.store.record(slot)
            if not record.resting:
                self.save(advance(record, Stopped()))
        self.store.close()
        self.wake()

    @rule(tail=st.binary(max_size=200))
    def power_cut(self, tail):
        """What was synchronised is there; of what was not, some bytes may be."""
        self.number += 1
        cut = self.root / str(self.number)
        cut.mkdir()
        for name in ("state.db", "state.db-wal", "fallback.json"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, cut / name)
        if (cut / "state.db-wal").exists():
            with (cut / "state.db-wal").open("ab") as log:
                log.write(tail)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder = cut
        self.wake()

    def wake(self):
        self.store = Store(self.folder, lambda: self.now)
        for slot in ("a", "b"):
            self.save(resume(self.store.record(slot)))

    @rule(now=st.sampled_from([0.0, 1.8e9, 4.3e9, -1.0]))
    def clock_jumps(self, now):
        self.now = now

    @invariant()
    def all_is_legal(self):
        floor = self.store.floor("line")
        committed = [r for (_, _, s), r in self.ended.items() if s is State.COMMITTED]
        assert floor == max(committed, default=0) >= self.floor
        self.floor = floor
        past = self.store.history(10_000)
        assert {(p.slot, p.counter, p.state) for p in past} == set(self.ended)
        assert len(past) == len(self.ended) == len(self.store.unsigned_reports())
        for record in self.store.records():
            assert record.transitions <= MAX_TRANSITIONS
            assert record.canaries <= MAX_CANARIES
            assert record.trials <= MAX_TRIALS
            assert record.attempt - record.trials <= MAX_UNFINISHED_BUILDS
            if record.resting:
                assert (record.slot, record.counter, record.state) in self.ended
        kept = self.store.kept()
        installed = [self.store.active(s) for s in ("a", "b")]
        assert {i.digest for i in installed if i is not None} <= kept
        assert all(i is None or i.digest in {digest_of(n) for n in range(1, 7)} for i in installed)
        copied = {i.slot: i.digest for i in fallback.read(self.folder)}
        assert copied == {i.slot: i.digest for i in installed if i is not None}


def test_no_life_leaves_the_states_the_budgets_or_the_floor():
    run_state_machine_as_test(
        Life, settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )
