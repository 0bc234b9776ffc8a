import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.errors import ConfigError
from fleet.campaign import Campaign, Member, Outcome, Plan, Status, stages_of

DEVICES = tuple(f"d{n}" for n in range(10))


def begin(campaign, now=0.0):
    """Assign what is to be assigned."""
    asked = campaign.step(now).assign
    for device in asked:
        campaign.assigned(device, now)
    return asked


def report(campaign, devices, outcome):
    for device in devices:
        campaign.finished(device, outcome)


def two_stages(**options):
    return Campaign(Plan((DEVICES[:4], DEVICES[4:]), **options))


class TestStages:
    def test_next_stage_opens_when_enough_have_committed(self):
        campaign = two_stages(success=0.5)
        assert begin(campaign) == DEVICES[:4]
        report(campaign, DEVICES[:1], Outcome.COMMITTED)
        assert begin(campaign) == ()
        report(campaign, DEVICES[1:2], Outcome.COMMITTED)
        assert begin(campaign) == DEVICES[4:]
        assert campaign.opened == 2

    def test_devices_are_asked_for_until_they_are_assigned(self):
        campaign = two_stages()
        assert campaign.step(0).assign == DEVICES[:4]
        campaign.assigned("d0", 0)
        assert campaign.step(0).assign == DEVICES[1:4]

    def test_success_needs_every_device_finished_and_enough_of_them_committed(self):
        campaign = two_stages(success=0.75, max_errors=0.25)
        begin(campaign)
        report(campaign, DEVICES[:4], Outcome.COMMITTED)
        begin(campaign)
        report(campaign, DEVICES[4:9], Outcome.COMMITTED)
        campaign.step(1)
        assert campaign.status is Status.RUNNING
        report(campaign, DEVICES[9:], Outcome.REJECTED)
        campaign.step(1)
        assert campaign.status is Status.SUCCEEDED

    def test_a_campaign_made_from_what_was_stored_goes_on(self):
        plan = Plan((DEVICES[:2], DEVICES[2:]))
        members = {
            "d0": Member(0, 5.0, Outcome.COMMITTED),
            "d1": Member(0, 5.0, Outcome.WAITING),
        }
        campaign = Campaign(plan, members)
        assert campaign.step(6).assign == ()
        assert campaign.next_deadline() == 5.0 + plan.deadline_s
        campaign.finished("d1", Outcome.COMMITTED)
        assert campaign.step(7).assign == DEVICES[2:]


class TestStops:
    def test_on_the_share_of_errors(self):
        campaign = two_stages(max_errors=0.25, success=0.5)
        begin(campaign)
        report(campaign, DEVICES[:1], Outcome.COMMITTED)
        report(campaign, DEVICES[1:2], Outcome.REJECTED)
        step = campaign.step(1)
        assert campaign.status is Status.STOPPED
        assert step.assign == ()
        assert set(step.left) == set(DEVICES[2:])
        assert campaign.reason.startswith("stage 1 of 2: 1 of 2 finished devices failed (1 REJECT")

    def test_share_of_errors_waits_for_its_sample(self):
        campaign = two_stages(max_errors=0.4, min_sample=3, success=0.5)
        begin(campaign)
        report(campaign, DEVICES[:1], Outcome.REJECTED)
        campaign.step(1)
        assert campaign.status is Status.RUNNING
        report(campaign, DEVICES[1:2], Outcome.COMMITTED)
        report(campaign, DEVICES[2:3], Outcome.ROLLED_BACK)
        campaign.step(1)
        assert campaign.status is Status.STOPPED

    def test_a_whole_stage_is_judged_even_if_it_is_smaller_than_the_sample(self):
        campaign = Campaign(Plan((("a",), ("b",)), success=0.0, max_errors=0.5, min_sample=5))
        begin(campaign)
        campaign.finished("a", Outcome.REJECTED)
        begin(campaign)
        assert campaign.status is Status.STOPPED

    def test_when_the_success_share_is_out_of_reach(self):
        campaign = two_stages(success=1.0, max_errors=1.0)
        begin(campaign)
        campaign.finished("d0", Outcome.REJECTED)
        campaign.step(1)
        assert campaign.status is Status.STOPPED
        assert "can no longer commit" in campaign.reason

    def test_on_the_deadline(self):
        campaign = two_stages(deadline_s=60)
        begin(campaign, 100.0)
        assert campaign.next_deadline() == 160.0
        assert campaign.step(159.9).timed_out == ()
        step = campaign.step(160.0)
        assert step.timed_out == DEVICES[:4]
        assert campaign.status is Status.STOPPED
        assert "4 TIMED_OUT" in campaign.reason

    def test_a_small_bad_stage_is_not_hidden_by_a_large_good_one(self):
        many = tuple(f"m{n}" for n in range(500))
        campaign = Campaign(Plan((many, DEVICES), success=0.9, max_errors=0.2))
        begin(campaign)
        report(campaign, many, Outcome.COMMITTED)
        begin(campaign)
        report(campaign, DEVICES[:2], Outcome.REJECTED)
        campaign.step(1)
        assert campaign.status is Status.STOPPED

    def test_two_stages_over_the_threshold_stay_stopped(self):
        campaign = two_stages(success=0.25, max_errors=0.5, min_sample=2)
        begin(campaign)
        campaign.finished("d0", Outcome.COMMITTED)
        assert begin(campaign) == DEVICES[4:]
        report(campaign, DEVICES[1:4], Outcome.REJECTED)
        report(campaign, DEVICES[4:8], Outcome.ROLLED_BACK)
        campaign.step(1)
        reason = campaign.reason
        for now in (2, 3, 10_000):
            assert campaign.step(now).assign == ()
            assert (campaign.status, campaign.reason) == (Status.STOPPED, reason)

    def test_late_success_is_known_but_undoes_no_stop(self):
        campaign = two_stages(deadline_s=60)
        begin(campaign)
        campaign.step(60)
        assert campaign.finished("d0", Outcome.COMMITTED)
        report(campaign, DEVICES[1:4], Outcome.COMMITTED)
        assert campaign.step(61).assign == ()
        assert campaign.status is Status.STOPPED
        assert campaign.members["d0"].outcome is Outcome.COMMITTED

    def test_an_operators_stop_keeps_its_reason(self):
        campaign = two_stages()
        campaign.stop("by hand")
        campaign.stop("later")
        assert campaign.step(0).assign == ()
        assert campaign.reason == "by hand"


class TestDevicesThatLeave:
    def test_their_stage_goes_on_without_them(self):
        campaign = two_stages(success=1.0)
        campaign.leave("d0")
        assert begin(campaign) == DEVICES[1:4]
        report(campaign, DEVICES[1:4], Outcome.COMMITTED)
        assert begin(campaign) == DEVICES[4:]

    def test_a_stage_of_none_is_passed_over(self):
        campaign = Campaign(Plan((("a",), ("b",))))
        campaign.leave("a")
        assert begin(campaign) == ("b",)


class TestReports:
    def test_the_first_report_counts(self):
        campaign = two_stages()
        begin(campaign)
        assert campaign.finished("d0", Outcome.COMMITTED)
        assert not campaign.finished("d0", Outcome.REJECTED)
        assert campaign.members["d0"].outcome is Outcome.COMMITTED

    def test_that_a_commitment_was_undone_counts(self):
        campaign = two_stages(success=0.5, max_errors=0.3)
        begin(campaign)
        report(campaign, DEVICES[:2], Outcome.COMMITTED)
        begin(campaign)
        assert campaign.finished("d0", Outcome.ROLLED_BACK)
        assert not campaign.finished("d0", Outcome.COMMITTED)
        campaign.step(1)
        assert campaign.status is Status.STOPPED

    def test_it_undoes_no_success(self):
        campaign = Campaign(Plan((("a",),)))
        begin(campaign)
        campaign.finished("a", Outcome.COMMITTED)
        campaign.step(1)
        campaign.finished("a", Outcome.ROLLED_BACK)
        campaign.step(2)
        assert campaign.status is Status.SUCCEEDED

    def test_of_a_device_that_was_not_assigned_do_not_count(self):
        campaign = two_stages()
        begin(campaign)
        assert not campaign.finished("d9", Outcome.COMMITTED)
        assert not campaign.finished("stranger", Outcome.COMMITTED)


class TestPlan:
    @pytest.mark.parametrize(
        "plan",
        [
            {"stages": ()},
            {"stages": (("a",), ())},
            {"stages": (("a",), ("a",))},
            {"stages": (("a",),), "success": 1.1},
            {"stages": (("a",),), "max_errors": -0.1},
            {"stages": (("a",),), "min_sample": 0},
            {"stages": (("a",),), "deadline_s": 0},
            {"stages": (("a",),), "deadline_s": float("inf")},
        ],
    )
    def test_nonsense_is_refused(self, plan):
        with pytest.raises(ConfigError):
            Plan(**plan)

    @pytest.mark.parametrize("percents", [(), (0, 100), (50, 10), (50, 50), (100, 101)])
    def test_percentages_must_rise_to_a_hundred_at_most(self, percents):
        with pytest.raises(ConfigError):
            stages_of(DEVICES, percents, "c")

    def test_more_stages_than_allowed_are_refused(self):
        with pytest.raises(ConfigError):
            stages_of(DEVICES, range(1, 30), "c")

    @given(st.sets(st.text(min_size=1, max_size=5), max_size=50), st.sets(st.integers(1, 100)))
    def test_stages_hold_the_share_that_was_asked_for(self, devices, percents):
        rising = sorted(percents)[:20]
        if not rising:
            return
        stages = stages_of(devices, rising, "c")
        flat = [device for stage in stages for device in stage]
        assert len(flat) == len(set(flat)) == -(-len(devices) * rising[-1] // 100)
        assert all(stages)

    def test_who_is_first_differs_between_campaigns_only(self):
        many = [f"d{n}" for n in range(100)]
        first = stages_of(many, (10, 100), "a")
        assert stages_of(reversed(many), (10, 100), "a") == first
        assert stages_of(many, (10, 100), "b") != first


class CampaignMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: nothing is assigned twice, and a stop is for good."""

    def __init__(self):
        super().__init__()
        self.campaign = Campaign(
            Plan((DEVICES[:2], DEVICES[2:5], DEVICES[5:]), success=0.6, max_errors=0.4)
        )
        self.now = 0.0
        self.assigned = []
        self.final = None

    @rule()
    def assign(self):
        for device in self.campaign.step(self.now).assign:
            stage = self.campaign.members[device].stage
            self.assigned.append(device)
            self.campaign.assigned(device, self.now)
            if stage:
                committed = self.campaign.tally(stage - 1)[Outcome.COMMITTED]
                assert committed >= 0.6 * len(self.campaign.plan.stages[stage - 1]) - 1e-6

    @rule(
        device=st.sampled_from((*DEVICES, "stranger")),
        outcome=st.sampled_from((Outcome.COMMITTED, Outcome.REJECTED, Outcome.ROLLED_BACK)),
    )
    def hear(self, device, outcome):
        news = self.campaign.finished(device, outcome)
        assert not (news and device not in self.assigned)

    @rule(seconds=st.floats(0, 4000))
    def wait(self, seconds):
        self.now += seconds
        for device in self.campaign.step(self.now).timed_out:
            assert self.campaign.members[device].outcome is Outcome.TIMED_OUT

    @precondition(lambda self: self.campaign.status is Status.STOPPED)
    @rule()
    def nothing_starts_again(self):
        assert self.campaign.step(self.now).assign == ()

    @invariant()
    def nobody_is_assigned_twice(self):
        assert len(set(self.assigned)) == len(self.assigned)

    @invariant()
    def a_stop_is_final(self):
        if self.final is not None:
            assert self.campaign.status is self.final
        elif self.campaign.status is not Status.RUNNING:
            self.final = self.campaign.status


CampaignMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestCampaignMachine = CampaignMachine.TestCase
