from __future__ import annotations

import dataclasses
import json
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.bundle.strict import MAX_U64
from agent.errors import RollbackError, StoreError
from agent.update import fallback, outcome
from agent.update import store as store_module
from agent.update.machine import (
    Built,
    Failed,
    IllegalTransition,
    Opened,
    Rollback,
    Trusted,
    Unchanged,
    advance,
    resume,
)
from agent.update.record import Record, State, record_of
from agent.update.store import Store
from tests.fakes.updates import digest_of, drive, offered, way


def reopened(folder, clock):
    return Store(folder, clock)


def test_nothing_was_ever_assigned(store):
    assert store.record("main") == Record("main")
    assert store.records() == ()
    assert (store.active("main"), store.previous("main")) == (None, None)
    assert (store.floor("line"), store.last_counter("main")) == (0, 0)
    assert not store.way_back("main")


def test_every_step_is_there_after_a_restart(folder, clock):
    for number, event in enumerate(way(1), start=1):
        store = Store(folder, clock)
        saved = drive(store, "main", (event,))
        store.close()
        store = Store(folder, clock)
        assert store.record("main") == saved
        assert saved.transitions == number
        store.close()


def test_files_are_for_the_agent_alone(store, folder):
    drive(store, "main", way(1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {f.name for f in files} >= {"state.db", "state.db-wal", "state.lock", "fallback.json"}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_a_commit_has_all_its_consequences(store, folder):
    drive(store, "main", way(1, least=1))
    clock_at = store.record("main").changed
    active = store.active("main")
    assert active is not None
    assert (active.digest, active.family, active.version) == (digest_of(1), "line", "1")
    assert (active.release_counter, active.min_release_counter, active.at) == (1, 1, clock_at)
    assert store.previous("main") is None
    assert store.way_back("main")
    assert store.floors() == {"line": 1}
    (past,) = store.history()
    assert (past.state, past.counter, past.version) == (State.COMMITTED, 1, "1")
    assert [p.id for p in store.unsigned_reports()] == [past.id]
    assert store.quarantine() == ()
    assert fallback.read(folder) == (active,)


def test_the_next_commit_keeps_the_one_before_and_no_more(store):
    for counter in (1, 2, 3):
        drive(store, "main", way(counter))
    active, previous = store.active("main"), store.previous("main")
    assert active is not None
    assert previous is not None
    assert (active.version, previous.version) == ("3", "2")
    assert store.kept() == {digest_of(3), digest_of(2)}
    drive(store, "main", way(4)[:4])
    assert store.kept() == {digest_of(4), digest_of(3), digest_of(2)}


def test_a_rejection_touches_nothing_but_quarantine_history_and_report(store):
    drive(store, "main", way(1))
    before = store.active("main"), store.previous("main"), store.floors()
    drive(store, "main", (*way(2)[:7], Failed("score 0.2 is below 0.8", '{"score":0.2}')))
    assert (store.active("main"), store.previous("main"), store.floors()) == before
    assert store.quarantined(digest_of(2)) == "score 0.2 is below 0.8"
    past = store.history()[0]
    assert (past.state, past.reason) == (State.REJECTED, "score 0.2 is below 0.8")
    assert json.loads(past.figures)["shadow"] == {"score": 0.2}
    assert len(store.unsigned_reports()) == 2


def test_a_refusal_that_blames_nothing_may_be_tried_again(store):
    drive(store, "main", (*way(1)[:2], Failed("disk full", blame=False)))
    assert store.quarantined(digest_of(1)) is None
    drive(store, "main", way(2, bundle=1))
    active = store.active("main")
    assert active is not None
    assert active.counter == 2


def test_a_failed_canary_leaves_the_active_one(store):
    drive(store, "main", way(1))
    drive(store, "main", (*way(2)[:8], Failed("errors")))
    active = store.active("main")
    assert active is not None
    assert active.version == "1"
    assert store.record("main").state is State.ROLLED_BACK
    assert store.quarantined(digest_of(2)) == "errors"
    assert store.floors() == {"line": 1}


def test_a_failed_trial_of_what_is_active_under_another_assignment_undoes_nothing(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    drive(store, "main", (*way(3, bundle=2)[:8], Failed("errors")))
    active, previous = store.active("main"), store.previous("main")
    assert active is not None
    assert previous is not None
    assert (active.counter, previous.counter) == (2, 1)
    assert store.way_back("main")


def test_a_rollback_brings_the_previous_one_back_and_keeps_the_floor(store, folder):
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    record = store.roll_back("main", "misses parts")
    assert (record.state, record.counter, record.reason) == (State.ROLLED_BACK, 2, "misses parts")
    active = store.active("main")
    assert active is not None
    assert (active.version, active.counter) == ("1", 1)
    assert store.previous("main") is None
    assert store.floors() == {"line": 2}
    assert store.quarantined(digest_of(2)) == "misses parts"
    assert [p.state for p in store.history()][:2] == [State.ROLLED_BACK, State.COMMITTED]
    assert [i.version for i in fallback.read(folder)] == ["1"]


def test_there_is_one_step_back_from_each_commit(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    store.roll_back("main", "worse")
    with pytest.raises(RollbackError, match="is not kept any more"):
        store.roll_back("main", "clicked twice")
    active = store.active("main")
    assert active is not None
    assert active.version == "1"
    drive(store, "main", way(3))
    store.roll_back("main", "worse again")
    assert store.floors() == {"line": 3}


def test_the_first_bundle_gives_way_to_the_configured_model(store, folder):
    drive(store, "main", way(1))
    store.roll_back("main", "worse")
    assert store.active("main") is None
    assert fallback.read(folder) == ()
    with pytest.raises(RollbackError, match="nothing to go back from"):
        store.roll_back("main", "again")


def test_a_rollback_works_after_later_updates_were_refused(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    drive(store, "main", (*way(3)[:6], Failed("bad")))
    record = store.roll_back("main", "worse")
    assert (record.counter, record.digest) == (2, digest_of(2))
    active = store.active("main")
    assert active is not None
    assert active.version == "1"
    assert store.last_counter("main") == 3
    with pytest.raises(IllegalTransition):
        store.save(advance(store.record("main"), offered(3, bundle=9)))
    drive(store, "main", way(4))


def test_the_machines_own_way_to_a_rollback_is_as_good(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2))
    drive(store, "main", (*way(3)[:6], Failed("bad")))
    active = store.active("main")
    assert active is not None
    store.save(advance(record_of(active), Rollback("worse")))
    assert store.record("main").digest == digest_of(2)
    with pytest.raises(RollbackError, match="is not kept"):
        store.save(advance(record_of(store.active("main")), Rollback("worse")))


def test_no_rollback_while_an_update_is_under_way(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2)[:3])
    with pytest.raises(RollbackError, match=r"under way \(FETCHING\)"):
        store.roll_back("main", "now")


def test_the_release_keys_can_bar_the_way_back(store):
    drive(store, "main", way(1))
    drive(store, "main", way(5, least=2))
    refusal = store.rollback_refusal("main")
    assert refusal == ("main: the release keys bar the way from 5 back to 1: release 1 is below 2")
    with pytest.raises(RollbackError, match="bar the way"):
        store.roll_back("main", "worse")
    active = store.active("main")
    assert active is not None
    assert active.version == "5"


def test_what_is_active_already_only_gets_the_new_assignment(store):
    drive(store, "main", way(1))
    drive(store, "main", way(2, least=1))
    drive(store, "main", (offered(3, bundle=2), Trusted("line", "2"), Unchanged()))
    active, previous = store.active("main"), store.previous("main")
    assert active is not None
    assert previous is not None
    assert (active.digest, active.counter, active.campaign) == (digest_of(2), 3, "c3")
    assert active.min_release_counter == 1
    assert previous.digest == digest_of(1)
    store.roll_back("main", "worse")
    active = store.active("main")
    assert active is not None
    assert active.digest == digest_of(1)


def test_slots_do_not_touch_each_other_but_share_floors(store):
    drive(store, "a", way(5))
    drive(store, "b", way(1, bundle=9))
    assert [r.slot for r in store.records()] == ["a", "b"]
    assert store.floors() == {"line": 9}
    store.roll_back("b", "worse")
    active = store.active("a")
    assert active is not None
    assert active.version == "5"
    assert store.active("b") is None


def test_counters_are_whole_numbers_up_to_the_last_of_64_bits(store):
    drive(store, "main", way(MAX_U64 - 1, bundle=7, release=MAX_U64 - 1))
    drive(store, "main", way(MAX_U64, bundle=8, release=MAX_U64))
    assert store.last_counter("main") == MAX_U64
    assert store.floors() == {"line": MAX_U64}
    drive(store, "other", way(1, bundle=9, release=10))
    assert store.floors() == {"line": MAX_U64}


def test_floors_never_fall(store):
    drive(store, "a", way(9))
    drive(store, "b", way(2))
    assert store.floors() == {"line": 9}


def test_saving_a_step_again_changes_nothing(store, clock):
    record = drive(store, "main", way(1))
    clock.now += 50
    assert store.save(record) == record
    assert store.save(dataclasses.replace(record, changed=0.0)) == record
    assert len(store.history()) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: dataclasses.replace(r, transitions=r.transitions + 1),
        lambda r: dataclasses.replace(r, state=State.CANARY),
        lambda r: dataclasses.replace(r, counter=r.counter + 1),
        lambda r: dataclasses.replace(r, state=State.COMMITTED),
    ],
)
def test_a_step_that_does_not_follow_is_not_saved(store, spoil):
    record = drive(store, "main", way(1)[:4])
    with pytest.raises(IllegalTransition, match="does not follow SEALED"):
        store.save(spoil(advance(record, Opened())))
    assert store.record("main") == record


def test_an_old_step_is_not_saved_over_a_newer_one(store):
    old = drive(store, "main", way(1)[:5])
    new = store.save(advance(old, Built()))
    with pytest.raises(IllegalTransition):
        store.save(advance(old, Failed("late")))
    assert store.record("main") == new


def test_an_outcome_is_final_until_the_next_assignment(store):
    record = drive(store, "main", (*way(1)[:5], Failed("bad")))
    with pytest.raises(IllegalTransition):
        store.save(dataclasses.replace(record, state=State.SEALED, transitions=99))
    assert resume(store.record("main")) == record


def test_times_are_of_the_store_and_never_out_of_range(folder, clock):
    store = Store(folder, clock)
    record = drive(store, "main", way(1)[:1])
    assert record.started == record.changed == clock.now
    clock.now = -5.0
    record = store.save(advance(record, Trusted("line", "1")))
    assert (record.started, record.changed) == (1_800_000_000.0, 0.0)
    clock.now = float("inf")
    assert store.save(advance(record, Failed("x"))).changed == 253_402_300_799.0
    store.close()


def test_a_signed_report_is_kept_until_it_was_sent(store):
    record = drive(store, "main", way(1)[:-1])
    store.save(advance(record, way(1)[-1]), report=b"signed")
    assert store.unsigned_reports() == ()
    ((number, slot, envelope),) = store.reports()
    assert (slot, envelope) == ("main", b"signed")
    store.report_sent(number)
    assert store.reports() == ()
    store.report_sent(number)


def test_a_report_can_be_signed_later(store):
    drive(store, "main", way(1))
    assert store.reports() == ()
    (past,) = store.unsigned_reports()
    store.report_signed(past.id, b"signed")
    assert store.reports() == ((past.id, "main", b"signed"),)
    assert store.unsigned_reports() == ()


def test_history_reports_and_quarantine_are_bounded(store, monkeypatch):
    monkeypatch.setattr(outcome, "MAX_HISTORY", 4)
    monkeypatch.setattr(outcome, "MAX_REPORTS", 3)
    monkeypatch.setattr(outcome, "MAX_QUARANTINE", 2)
    for counter in range(1, 8):
        drive(store, "main", (*way(counter)[:6], Failed(f"bad {counter}")))
    assert [p.counter for p in store.history()] == [7, 6, 5, 4]
    assert [p.counter for p in store.unsigned_reports()] == [5, 6, 7]
    assert [b.reason for b in store.quarantine()] == ["bad 7", "bad 6"]
    assert len(store.history(2)) == 2


def test_a_nonce_works_once(store):
    assert store.use_nonce("a" * 32, 2e9)
    assert not store.use_nonce("a" * 32, 2e9)
    assert store.use_nonce("b" * 32, 2e9)


def test_a_command_and_its_nonce_are_used_up_together(store):
    for counter in (1, 2):
        drive(store, "main", way(counter))
    assert store.use_nonce("a" * 32, 2e9)
    with pytest.raises(RollbackError, match="carried out before"):
        store.roll_back("main", "worse", nonce=("a" * 32, 2e9))
    active = store.active("main")
    assert active is not None
    assert active.version == "2"
    store.roll_back("main", "worse", nonce=("b" * 32, 2e9))
    assert not store.use_nonce("b" * 32, 2e9)


def test_nonces_are_forgotten_by_signed_time_only(store, clock, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_NONCES", 2)
    assert store.use_nonce("a" * 32, 1000.0)
    assert store.use_nonce("b" * 32, 3000.0)
    clock.now = 4e9
    with pytest.raises(StoreError, match="2 commands are remembered"):
        store.use_nonce("c" * 32, 3000.0)
    assert not store.use_nonce("a" * 32, 1000.0)
    store.trust.raise_time_floor(2000.0)
    assert store.use_nonce("c" * 32, 3000.0)
    assert not store.use_nonce("b" * 32, 3000.0)


def test_a_pause_outlives_a_restart(folder, clock):
    store = Store(folder, clock)
    store.set_paused(True)
    store.set_paused(True)
    store.close()
    store = Store(folder, clock)
    assert store.paused()
    store.set_paused(False)
    assert not store.paused()
    store.close()


def test_threads_take_turns(store):
    """Each does its slot's whole update; no step is lost or mixed up."""

    def work(slot):
        for counter in (1, 2):
            drive(store, slot, way(counter))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"s{n}" for n in range(4)]))
    assert [r.state for r in store.records()] == [State.COMMITTED] * 4
    assert len(store.history()) == 8


def test_readers_read_while_it_is_written(store, folder):
    drive(store, "main", way(1)[:5])
    uri = f"{(folder / 'state.db').as_uri()}?mode=ro"
    other = sqlite3.connect(uri, uri=True, isolation_level=None)
    with store._database.transaction():
        drive(store, "main", way(1)[5:6])
        assert other.execute("SELECT state FROM records").fetchone() == ("BUILDING",)
    assert other.execute("SELECT state FROM records").fetchone() == ("GATING",)
    other.close()


@pytest.mark.parametrize("figures", ["", "{", b"\xff"])
def test_a_row_that_cannot_be_read_is_damage(store, figures):
    drive(store, "main", way(1))
    with store._database.transaction() as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute("UPDATE records SET figures = ?", (figures,))
        connection.execute("UPDATE history SET state = 'FORGOTTEN'")
    with pytest.raises(StoreError, match=r"a row cannot be read: .*; it is damaged"):
        store.history()
    with pytest.raises(StoreError, match="a row cannot be read"):
        store.record("main")


def test_a_failure_inside_leaves_nothing(store, monkeypatch):
    record = drive(store, "main", way(1)[:-1])
    monkeypatch.setattr(outcome, "_bound", lambda _connection: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.save(advance(record, way(1)[-1]))
    assert store.record("main") == record
    assert store.active("main") is None
    assert store.floors() == {}
    assert store.history() == ()
    monkeypatch.undo()
    assert store.save(advance(record, way(1)[-1])).state is State.COMMITTED
