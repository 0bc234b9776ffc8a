"""The decisions, by themselves and in a loop with a board that warms up and cools down."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.governor import MAX_RELAPSES, Limits, Look, State, calm, decide, too_much

LIMITS = Limits(levels=5, margin_c=8, release_c=13, power_w=None, hold_s=15, calm_s=120)
HOT = Look(0, 5, None, False)
COOL = Look(0, 30, None, False)
BETWEEN = Look(0, 10, None, False)


def run(looks, limits=LIMITS, state=None, every_s=2.0):
    """The states after each of the looks, one every two seconds, and the steps."""
    state, steps, now = state or State(), [], 1000.0
    for look in looks:
        now += every_s
        state, step = decide(state, replace(look, now_s=now), limits)
        if step:
            steps.append((now - 1000.0, step, state.level))
    return state, steps


def test_heat_is_answered_at_once_and_then_step_by_step():
    _, steps = run([HOT] * 20)
    assert steps == [(2.0, "down", 1), (18.0, "down", 2), (34.0, "down", 3)]


def test_the_lowest_level_is_the_end():
    state, steps = run([HOT] * 1000)
    assert state.level == 5
    assert len(steps) == 5


def test_slowing_down_counts_as_heat_whatever_the_sensors_say():
    assert run([replace(COOL, slowed=True)])[1] == [(2.0, "down", 1)]


def test_between_the_limits_nothing_happens():
    assert run([BETWEEN] * 1000, state=State(level=2))[1] == []


def test_a_step_up_waits_for_a_long_calm():
    _, steps = run([COOL] * 200, state=State(level=2))
    assert steps == [(122.0, "up", 1), (242.0, "up", 0)]


def test_calm_that_is_interrupted_begins_anew():
    _, steps = run([COOL] * 50 + [BETWEEN] + [COOL] * 61, state=State(level=1))
    assert steps == [(2 * 112.0, "up", 0)]


def test_a_step_up_that_was_too_early_is_tried_later_the_next_time():
    state, steps = run([COOL] * 62 + [HOT] * 2 + [COOL] * 300, state=State(level=1))
    ups = [at for at, step, _ in steps if step == "up"]
    assert ups[1] - ups[0] > 2 * LIMITS.calm_s
    assert state.level == 0
    assert state.relapses == 0, "a long calm at the top is forgiven"


def test_power_above_the_budget_is_too_much_and_room_is_well_below_it():
    limits = replace(LIMITS, power_w=10)
    assert too_much(replace(COOL, power_w=10.1), limits)
    assert not too_much(replace(COOL, power_w=9.0), limits)
    assert not calm(replace(COOL, power_w=9.0), limits)
    assert calm(replace(COOL, power_w=8.0), limits)
    assert not calm(COOL, limits), "power is limited, and nothing tells it"


def test_without_sensors_nothing_is_done():
    blind = Look(0, None, None, False)
    assert run([blind] * 500)[1] == []
    assert run([blind] * 500, state=State(level=2))[1] == []


def test_fewer_levels_than_before_are_obeyed():
    assert run([BETWEEN], replace(LIMITS, levels=1), State(level=4))[0].level == 1


looks = st.lists(
    st.builds(
        Look,
        now_s=st.just(0.0),
        headroom_c=st.none() | st.floats(-50, 80),
        power_w=st.none() | st.floats(0, 60),
        slowed=st.booleans(),
    ),
    max_size=200,
)
limits = st.builds(
    lambda levels, margin, more, power, hold, calm_s: Limits(
        levels, margin, margin + more, power, hold, calm_s
    ),
    st.integers(0, 9),
    st.floats(1, 50),
    st.floats(1, 50),
    st.none() | st.floats(1, 60),
    st.floats(0.1, 60),
    st.floats(0.1, 600),
)


@given(looks, limits)
def test_it_stays_within_its_levels_moves_one_at_a_time_and_keeps_its_times(looks, limits):
    state, now, last_down, last_up = State(), 0.0, None, None
    for look in looks:
        now += 2.0
        before = state
        state, step = decide(state, replace(look, now_s=now), limits)
        assert 0 <= state.level <= limits.levels
        assert 0 <= state.relapses <= MAX_RELAPSES
        assert state.level - before.level == {"down": 1, "up": -1, None: 0}[step]
        if step == "down":
            assert too_much(look, limits)
            assert last_down is None or now - last_down >= limits.hold_s
            last_down = now
        if step == "up":
            assert calm(look, limits)
            since = max(t for t in (0.0, last_down, last_up) if t is not None)
            assert now - since >= limits.calm_s
            last_up = now


@settings(deadline=None)
@given(st.floats(25, 45), st.floats(40, 70), st.floats(30, 120))
def test_with_a_board_that_warms_up_it_neither_throttles_nor_swings(ambient, full_heat, tau_s):
    """A board of one heat capacity: what is done at level 0 warms it by `full_heat` in the end."""
    shares = (1.0, 0.75, 0.5, 0.33, 0.2, 0.1)
    state, celsius, steps, throttled = State(), ambient, [], 0
    for second in range(0, 4 * 3600, 2):
        target = ambient + full_heat * shares[state.level]
        celsius += (target - celsius) * 2 / tau_s
        throttled += celsius >= 99
        state, step = decide(state, Look(float(second), 99 - celsius, None, False), LIMITS)
        steps += [step] if step else []
    assert throttled == 0
    # Down to where it holds, three attempts with a shorter wait, then one in sixteen minutes.
    attempts = MAX_RELAPSES + 4 * 3600 / (LIMITS.calm_s * 2**MAX_RELAPSES)
    assert len(steps) <= 5 + 2 * attempts


@pytest.mark.parametrize("level", range(6))
def test_from_every_level_calm_leads_back_to_everything(level):
    assert run([COOL] * 400, state=State(level=level, relapses=0))[0].level == 0
