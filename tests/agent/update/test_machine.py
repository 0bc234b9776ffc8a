from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.update import machine
from agent.update.machine import (
    MAX_CANARIES,
    MAX_FIGURES,
    MAX_TRANSITIONS,
    MAX_TRIALS,
    MAX_UNFINISHED_BUILDS,
    TABLE,
    Admitted,
    Built,
    Failed,
    Fetched,
    Healthy,
    IllegalTransition,
    Judged,
    Opened,
    Rollback,
    Shadowed,
    Stopped,
    Trusted,
    Unchanged,
    advance,
    resume,
)
from agent.update.record import OUTCOMES, RESTING, Record, State
from tests.fakes.updates import at, offered, walk, way

STRAIGHT = [s for s in State if s not in {State.REJECTED, State.ROLLED_BACK}]
UNDER_WAY = [s for s in State if s not in RESTING]
IN_MEMORY = [State.SEALED, State.BUILDING, State.GATING, State.SHADOWING, State.CANARY]
BEFORE_CANARY = [s for s in UNDER_WAY if s is not State.CANARY]
RUN = (Opened(), Built(), Judged(), Shadowed())
"""From SEALED to CANARY."""

EVENTS = [
    offered(1000),
    Trusted("line", "9"),
    Admitted(3),
    Unchanged(),
    Fetched(),
    Opened(),
    Built(),
    Judged(),
    Shadowed(),
    Healthy(),
    Failed("no"),
    Stopped(),
    Rollback(),
]


def test_the_straight_way_visits_every_state_and_commits():
    record = Record("main")
    visited = [record.state]
    for event in way(1):
        record = advance(record, event)
        visited.append(record.state)
    assert visited == STRAIGHT
    assert (record.attempt, record.trials, record.canaries) == (1, 1, 1)
    assert json.loads(record.figures) == {
        "build": {"seconds": 1},
        "gate": {"score": 0.9},
        "shadow": {"agreement": 0.99},
        "canary": {"fps": 30},
    }


@pytest.mark.parametrize("state", STRAIGHT)
@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_only_what_the_table_has_can_happen(state, event):
    record = at(state)
    wanted = TABLE.get((state, type(event)))
    if wanted is None:
        with pytest.raises(IllegalTransition, match=rf"main: \w+ has no place in {state.value}"):
            advance(record, event)
    else:
        assert advance(record, event).state is wanted


def test_all_events_are_tried():
    assert {type(e) for e in EVENTS} == set(machine.Event.__args__)


@pytest.mark.parametrize("state", BEFORE_CANARY)
def test_a_failure_before_the_canary_rejects(state):
    record = advance(at(state), Failed("x" * 9000))
    assert record.state is State.REJECTED
    assert len(record.reason) == machine.MAX_REASON


def test_a_failure_of_the_canary_rolls_back_with_figures():
    record = advance(at(State.CANARY), Failed("slow", '{"p95_ms":80}'))
    assert record.state is State.ROLLED_BACK
    assert json.loads(record.figures)["canary"] == {"p95_ms": 80}
    assert record.blame


@pytest.mark.parametrize("state", UNDER_WAY)
def test_nobody_can_have_a_bundle_banned_that_was_not_looked_at(state):
    record = advance(at(state), Failed("forged", blame=True))
    assert record.blame is (state not in {State.OFFERED, State.TRUSTED})
    assert not advance(at(state), Failed("replaced", blame=False)).blame


@pytest.mark.parametrize("state", [State.COMMITTED, State.REJECTED, State.ROLLED_BACK, State.IDLE])
def test_a_new_assignment_begins_from_nothing(state):
    record = dataclasses.replace(
        walk(Record("main"), way(3)), state=state, reason="old", blame=True, attempt=2
    )
    fresh = advance(record, offered(4))
    assert fresh == advance(Record("main"), offered(4))
    assert (fresh.transitions, fresh.reason, fresh.blame) == (1, "", False)


@pytest.mark.parametrize("counter", [0, 2, 3])
def test_an_older_assignment_is_never_begun(counter):
    with pytest.raises(IllegalTransition, match="not above 3"):
        advance(walk(Record("main"), way(3)), offered(counter))


@pytest.mark.parametrize("state", [State.OFFERED, State.TRUSTED, State.FETCHING, *sorted(OUTCOMES)])
def test_a_restart_while_the_network_works_or_nothing_does_changes_nothing(state):
    record = dataclasses.replace(at(State.OFFERED), state=state)
    assert resume(record) is record


@pytest.mark.parametrize("state", IN_MEMORY)
def test_the_first_restart_begins_again_with_opening(state):
    record = at(state)
    again = resume(record)
    assert again.state is State.SEALED
    assert again.attempt == record.attempt + 1
    assert (again.trials, again.canaries) == (record.trials, record.canaries)


@pytest.mark.parametrize("state", [State.SEALED, State.BUILDING])
def test_two_crashes_of_the_build_reject(state):
    record = at(state)
    for _ in range(MAX_UNFINISHED_BUILDS - 1):
        record = resume(record)
        assert record.state is State.SEALED
        record = record if state is State.SEALED else advance(record, Opened())
    record = resume(record)
    assert record.state is State.REJECTED
    assert record.blame
    assert "2 attempts to build" in record.reason


def test_crashes_of_the_build_and_of_judging_are_counted_apart():
    record = advance(resume(at(State.GATING)), Opened())
    assert record.attempt == 2
    record = walk(resume(record), [Opened(), Built()])
    assert (record.attempt, record.trials) == (3, 2)
    assert resume(record).state is State.SEALED
    # The second crash of a build, even if one between them came to an end.
    assert resume(advance(resume(record), Opened())).state is State.REJECTED


@pytest.mark.parametrize("events", [RUN[:2], RUN[:3]], ids=["gate", "shadow"])
def test_judging_is_begun_a_few_times_only(events):
    record = walk(at(State.SEALED), events)
    for _ in range(MAX_TRIALS - 1):
        record = walk(resume(record), events)
    record = resume(record)
    assert record.state is State.REJECTED
    assert "3 attempts to judge" in record.reason


def test_the_second_crash_of_the_canary_rolls_back():
    record = at(State.CANARY)
    for _ in range(MAX_CANARIES - 1):
        record = walk(resume(record), RUN)
        assert record.state is State.CANARY
    record = resume(record)
    assert record.state is State.ROLLED_BACK
    assert "2 trials" in record.reason


@pytest.mark.parametrize("state", UNDER_WAY)
def test_an_orderly_stop_does_not_count(state):
    record = at(state)
    for _ in range(3):
        stopped = advance(record, Stopped())
        record = resume(stopped)
        assert record.state is (State.SEALED if state in IN_MEMORY else state)
        counts = (record.attempt, record.trials, record.canaries)
        assert counts == ((1, 0, 0) if state in IN_MEMORY else (0, 0, 0))
        record = walk(record, RUN[: IN_MEMORY.index(state)]) if state in IN_MEMORY else record
        assert record.state is state


def test_endless_stops_end():
    record = at(State.CANARY)
    for _ in range(MAX_TRANSITIONS):
        record = resume(advance(record, Stopped()))
        if record.state in OUTCOMES:
            break
        record = advance(record, Opened())
    assert record.state is State.REJECTED
    assert "no outcome after" in record.reason
    assert record.transitions <= MAX_TRANSITIONS


def test_a_canary_that_uses_up_the_budget_is_rolled_back():
    record = dataclasses.replace(at(State.CANARY), transitions=MAX_TRANSITIONS - 2)
    assert advance(record, Stopped()).state is State.ROLLED_BACK
    assert resume(record).state is State.ROLLED_BACK
    assert advance(record, Healthy()).state is State.COMMITTED


def test_what_is_committed_can_be_undone_at_the_end_of_the_budget():
    record = dataclasses.replace(at(State.CANARY), transitions=MAX_TRANSITIONS - 2)
    undone = walk(record, [Healthy(), Rollback("worse")])
    assert (undone.state, undone.transitions, undone.blame, undone.reason) == (
        State.ROLLED_BACK,
        MAX_TRANSITIONS,
        True,
        "worse",
    )


def test_figures_that_are_too_many_are_left_out():
    large = json.dumps({"x": "y" * MAX_FIGURES})
    record = advance(at(State.BUILDING), Built(large))
    assert record.figures == "{}"
    assert json.loads(advance(record, Judged('{"a":1}')).figures) == {"gate": {"a": 1}}


def test_what_is_active_already_is_committed_without_a_fetch():
    record = advance(at(State.TRUSTED), Unchanged())
    assert record.state is State.COMMITTED
    assert record.attempt == 0


STEPS = st.lists(st.one_of(st.sampled_from(EVENTS), st.just("crash")), max_size=200)


@given(STEPS)
def test_no_order_of_events_leaves_the_table_or_the_budgets(steps):
    record, counter = Record("main"), 0
    for step in steps:
        if step == "crash":
            following = resume(record)
        elif (record.state, type(step)) in TABLE:
            counter += 1
            following = advance(record, offered(counter) if step is EVENTS[0] else step)
        else:
            continue
        assert following is record or (record.state, following.state) in machine.EDGES
        if following.counter == record.counter and following is not record:
            assert following.transitions == record.transitions + 1
        record = following
        assert record.transitions <= MAX_TRANSITIONS
        assert 0 <= record.canaries <= min(MAX_CANARIES, record.trials)
        assert record.trials <= MAX_TRIALS
        assert record.trials <= record.attempt
        assert record.attempt - record.trials <= MAX_UNFINISHED_BUILDS


@given(st.lists(st.sampled_from(["go", "crash"]), min_size=60, max_size=60))
def test_every_update_comes_to_an_end_if_nothing_but_crashes_happens(steps):
    on = dict(zip(IN_MEMORY, (*RUN, Healthy()), strict=True))
    record = at(State.SEALED)
    for step in steps:
        if record.state in OUTCOMES:
            return
        record = resume(record) if step == "crash" else advance(record, on[record.state])
    raise AssertionError(record)
