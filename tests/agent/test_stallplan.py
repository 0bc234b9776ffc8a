"""Stalls: told once, begun anew a bounded number of times, then the process ends."""

from hypothesis import given
from hypothesis import strategies as st

from agent.progress import Activity, Stage
from agent.stallplan import MAX_RENEWALS, RENEWALS_WITHIN_S, StallPlan


def stage(age_s, name="a", *, renewable=False, essential=True):
    return Stage(name, age_s, 10.0, (lambda: True) if renewable else None, essential=essential)


def actions(plan, now, *stages):
    return [step.action for step in plan.look(stages, now)]


def test_an_activity_is_as_old_as_its_last_mark_and_rests_between():
    now = [5.0]
    activity = Activity(lambda: now[0])
    assert activity.age_s is None
    with activity:
        now[0] = 8.0
        assert activity.age_s == 3.0
        activity.mark()
        assert activity.age_s == 0.0
    assert activity.age_s is None


def test_what_has_a_deadline_of_its_own_ages_from_then():
    now = [5.0]
    activity = Activity(lambda: now[0])
    activity.mark(100.0)
    now[0] = 100.0
    assert activity.age_s == 0.0
    now[0] = 107.0
    assert activity.age_s == 2.0


def test_what_is_not_essential_is_told_begun_anew_and_never_ends_the_process():
    plan = StallPlan(5)
    assert actions(plan, 0, stage(11, renewable=True, essential=False)) == ["tell", "renew"]
    assert plan.stalled == ("a",)
    assert plan.holding == ()
    assert actions(plan, 600, stage(611, renewable=True, essential=False)) == []
    assert actions(plan, 600, stage(11, "b"), stage(611, essential=False)) == ["tell"]
    assert plan.holding == ("b",)
    assert actions(plan, 605, stage(16, "b"), stage(616, essential=False)) == ["exit"]


def test_a_stage_at_rest_or_within_its_limit_is_left_alone():
    plan = StallPlan(5)
    assert actions(plan, 0, stage(None), stage(10.0, "b")) == []
    assert plan.stalled == ()


def test_a_stall_is_told_once_and_its_end_too():
    plan = StallPlan(5)
    assert actions(plan, 0, stage(11)) == ["tell"]
    assert plan.stalled == ("a",)
    assert actions(plan, 1, stage(12)) == []
    assert actions(plan, 2, stage(None)) == ["over"]
    assert plan.stalled == ()


def test_a_stall_that_lasts_ends_the_process_once():
    plan = StallPlan(5)
    actions(plan, 0, stage(11))
    assert actions(plan, 4.9, stage(16)) == []
    assert actions(plan, 5, stage(16)) == ["exit"]
    assert actions(plan, 6, stage(17)) == []


def test_a_stage_is_begun_anew_only_so_often_within_a_time():
    plan = StallPlan(5)
    for i in range(MAX_RENEWALS):
        assert actions(plan, 2 * i, stage(11, renewable=True)) == ["tell", "renew"]
        assert actions(plan, 2 * i + 1, stage(None, renewable=True)) == ["over"]
    assert actions(plan, 20, stage(11, renewable=True)) == ["tell"]
    assert actions(plan, 21, stage(None, renewable=True)) == ["over"]
    later = 20 + RENEWALS_WITHIN_S
    assert actions(plan, later, stage(11, renewable=True)) == ["tell", "renew"]


def test_a_stage_that_was_removed_stalls_no_more():
    plan = StallPlan(5)
    actions(plan, 0, stage(11))
    assert actions(plan, 1) == []
    assert plan.stalled == ()


@given(
    st.lists(st.tuples(st.floats(0.1, 5), st.one_of(st.none(), st.floats(0, 30)), st.booleans()))
)
def test_whatever_happens_told_and_over_alternate_and_the_end_comes_once(looks):
    plan, now, steps = StallPlan(5), 0.0, []
    for delay, age, renewable in looks:
        now += delay
        steps += plan.look([stage(age, renewable=renewable)], now)
    told = [s.action for s in steps if s.action in ("tell", "over")]
    assert told == [("tell", "over")[i % 2] for i in range(len(told))]
    assert [s.action for s in steps].count("exit") <= 1
    assert (plan.stalled == ("a",)) == (len(told) % 2 == 1)
