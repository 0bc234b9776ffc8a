import pytest
from sqlalchemy import select

from agent.bundle.documents import REPORT, Assignment, Report
from agent.bundle.dsse import sign, unverified
from agent.bundle.softkeys import SoftKeys
from agent.wire.topics import Topics
from fleet.campaign import Outcome, Plan, Status
from fleet.errors import FleetError
from fleet.rollout import RENEW_LOOK_S
from fleet.tables import Assignment as AssignmentRow
from fleet.tables import Campaign, Device, StoredReport
from tests.fakes.smallfleet import PREFIX, SmallFleet
from tests.fakes.tufrepository import key


@pytest.fixture
def fleet(tmp_path):
    fleet = SmallFleet(tmp_path)
    fleet.publish()
    yield fleet
    fleet.database.close()


def outcomes(rollout):
    return {device: member.outcome for device, member in rollout.campaign.members.items()}


def assignment(fleet, device):
    return unverified(fleet.air.retained[Topics(PREFIX, device).assignment], Assignment)


def forged(fleet, device, keys, **changes):
    """What a report of the device's assignment would say, signed by whoever has `keys`."""
    given = assignment(fleet, device)
    usual = {
        "device": device,
        "slot": given.slot,
        "campaign": given.campaign,
        "counter": given.counter,
        "sha256": given.sha256,
        "release_counter": given.release_counter,
        "outcome": "COMMITTED",
        "key_level": "L0",
        "boot": "b",
        "at": int(fleet.now()),
    }
    envelope = sign(REPORT, Report(**usual | changes), [keys.signer()])
    fleet.air.publish(Topics(PREFIX, device).update_report("main"), envelope, retain=True)


class TestSuccess:
    def test_every_device_gets_the_bundle_and_its_signed_report_counts(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        assert rollout.advance(0)
        devices = [fleet.device(name) for name in fleet.keys]
        for device in devices:
            device.run()
            assert device.device.failure == ""
        assert not rollout.advance(0)
        assert rollout.campaign.status is Status.SUCCEEDED
        with fleet.database.reading() as session:
            kept_reports = session.scalars(select(StoredReport.outcome)).all()
            kept = session.get(Campaign, "c")
        assert kept_reports == ["COMMITTED"] * 3
        assert (kept.state, kept.ended_at) == ("SUCCEEDED", int(fleet.now()))

    def test_every_device_has_a_grant_of_its_own(self, fleet):
        fleet.create()
        fleet.rollout().advance(0)
        sealed = {assignment(fleet, name).grant.sealed for name in fleet.keys}
        assert len(sealed) == 3

    def test_a_device_cannot_use_anothers_grant(self, fleet):
        fleet.create()
        fleet.rollout().advance(0)
        own, other = Topics(PREFIX, "d0").assignment, Topics(PREFIX, "d1").assignment
        fleet.air.retained[own] = fleet.air.retained[other]
        device = fleet.device("d0")
        device.run()
        assert "is for d1" in device.device.failure

    def test_a_director_whom_the_release_keys_do_not_know_is_not_obeyed(self, fleet):
        fleet.create()
        fleet.rollout(signers=[key("thief")]).advance(0)
        device = fleet.device("d0")
        device.run()
        assert device.device.failure.startswith("SignatureError")

    def test_blocks_the_broker_has_lost_are_asked_for_and_sent_again(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        rollout.advance(0)
        for number in range(1, fleet.files.blocks):
            del fleet.air.retained[fleet.topics.block(fleet.files.id, number)]
        device = fleet.device("d0")
        device.run()
        assert not device.device.reported
        for _ in range(10):
            fleet.house.now += 61
            device.obey(device.device.tick())
            rollout.advance(0)
            device.run()
        assert device.device.reported


class TestReportsThatAreNoSuccess:
    @pytest.mark.parametrize(
        "changes",
        [
            {"counter": 99},
            {"sha256": "ab" * 32},
            {"release_counter": 99},
            {"campaign": "other"},
            {"slot": "other"},
        ],
    )
    def test_of_something_else(self, fleet, changes):
        fleet.create()
        rollout = fleet.rollout()
        rollout.advance(0)
        forged(fleet, "d0", fleet.keys["d0"], **changes)
        rollout.advance(0)
        assert outcomes(rollout)["d0"] is Outcome.WAITING

    def test_signed_by_nobody_that_is_known(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        rollout.advance(0)
        forged(fleet, "d0", SoftKeys.generate())
        forged(fleet, "d1", fleet.keys["d0"])
        fleet.air.publish(Topics(PREFIX, "d2").update_report("main"), b"{}", retain=True)
        rollout.advance(0)
        assert set(outcomes(rollout).values()) == {Outcome.WAITING}
        with fleet.database.reading() as session:
            assert session.scalars(select(StoredReport)).all() == []

    def test_state_that_says_committed_is_no_success(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        rollout.advance(0)
        device = fleet.device("d0")
        topic = Topics(PREFIX, "d0").update_report("main")
        fleet.air.inboxes = []
        device.run()
        del fleet.air.retained[topic]
        fleet.air.inboxes = [rollout.inbox]
        state = Topics(PREFIX, "d0").update_state("main")
        fleet.air.publish(state, fleet.air.retained[state], retain=True)
        rollout.advance(0)
        assert rollout.router.board.rows["d0", "main"].state == "COMMITTED"
        assert outcomes(rollout)["d0"] is Outcome.WAITING


class TestStages:
    def test_the_second_stage_waits_for_the_first(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        rollout = fleet.rollout()
        rollout.advance(0)
        assert Topics(PREFIX, "d1").assignment not in fleet.air.retained
        fleet.device("d0").run()
        rollout.advance(0)
        assert Topics(PREFIX, "d1").assignment in fleet.air.retained
        assert Topics(PREFIX, "d2").assignment in fleet.air.retained

    def test_a_bad_first_stage_stops_it(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        rollout = fleet.rollout()
        rollout.advance(0)
        fleet.device("d0", "REJECTED").run()
        assert not rollout.advance(0)
        assert rollout.campaign.status is Status.STOPPED
        assert outcomes(rollout) == {
            "d0": Outcome.REJECTED,
            "d1": Outcome.LEFT,
            "d2": Outcome.LEFT,
        }
        assert Topics(PREFIX, "d1").assignment not in fleet.air.retained

    def test_a_silent_first_stage_stops_it_at_its_deadline(self, fleet):
        fleet.create(("d0",), ("d1", "d2"), deadline_s=60.0)
        rollout = fleet.rollout()
        rollout.advance(0)
        fleet.house.now += 59
        assert rollout.advance(0)
        fleet.house.now += 2
        assert not rollout.advance(0)
        assert outcomes(rollout)["d0"] is Outcome.TIMED_OUT
        with fleet.database.reading() as session:
            assert session.get(AssignmentRow, ("d0", 1)).outcome == "TIMED_OUT"

    def test_a_stop_takes_back_what_was_not_begun(self, fleet):
        fleet.create(success=0.5, max_errors=0.3)
        rollout = fleet.rollout()
        rollout.advance(0)
        fleet.device("d0", "ROLLED_BACK").run()
        rollout.advance(0)
        assert rollout.campaign.status is Status.STOPPED
        for name in ("d1", "d2"):
            assert Topics(PREFIX, name).assignment not in fleet.air.retained

    def test_a_device_that_was_revoked_meanwhile_gets_nothing(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        rollout = fleet.rollout()
        rollout.advance(0)
        with fleet.database.session() as session:
            session.get(Device, "d1").revoked_at = 1
        fleet.device("d0").run()
        rollout.advance(0)
        assert Topics(PREFIX, "d1").assignment not in fleet.air.retained
        fleet.device("d2").run()
        assert not rollout.advance(0)
        assert rollout.campaign.status is Status.SUCCEEDED
        assert outcomes(rollout)["d1"] is Outcome.LEFT


class TestBrokenOff:
    def test_another_command_goes_on_with_it(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        fleet.rollout().advance(0)
        device = fleet.device("d0")
        device.run()
        rollout = fleet.rollout()
        # Retained: the report waited for whoever would hear it.
        topic = Topics(PREFIX, "d0").update_report("main")
        rollout.inbox.put(topic, fleet.air.retained[topic])
        rollout.advance(0)
        assert outcomes(rollout)["d0"] is Outcome.COMMITTED
        assert rollout.campaign.opened == 2

    def test_an_assignment_that_was_made_and_not_published_is_published_later(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        fleet.rollout().advance(0)
        topic = Topics(PREFIX, "d0").assignment
        envelope = fleet.air.retained.pop(topic)
        fleet.rollout().advance(0)
        assert fleet.air.retained[topic] == envelope

    def test_a_device_is_in_one_campaign_at_a_time(self, fleet):
        fleet.create(("d0",))
        with pytest.raises(FleetError, match="d0 is in campaign 'c'"):
            fleet.campaigns.create(
                fleet.offer.__class__("other", "main", fleet.offer.digest, "line", "1", 1),
                Plan((("d1", "d0"),)),
                "ann",
            )

    def test_a_campaigns_name_is_used_once(self, fleet):
        fleet.create(("d0",))
        with pytest.raises(FleetError, match="already"):
            fleet.create(("d1",))

    def test_counters_of_a_device_only_rise(self, fleet):
        fleet.create(("d0",))
        rollout = fleet.rollout()
        rollout.advance(0)
        fleet.device("d0").run()
        rollout.advance(0)
        fleet.campaigns.create(
            fleet.offer.__class__("c2", "main", fleet.offer.digest, "line", "1", 1),
            Plan((("d0",),)),
            "ann",
        )
        first = assignment(fleet, "d0").counter
        fleet.offer = fleet.campaigns.load("c2")[1]
        campaign, offer = fleet.campaigns.load("c2")
        assert campaign.members["d0"].assigned_at is None
        made = rollout._assigner.__class__(
            fleet.database, [fleet.house.director], offer, fleet.data_key, 60.0, fleet.now
        ).assign(["d0"], 1)
        assert made[0].expected.counter > first


class TestOtherCommands:
    def test_two_that_drive_it_assign_each_device_once(self, fleet):
        fleet.create()
        first = fleet.rollout()
        second = fleet.rollout()
        first.advance(0)
        envelopes = dict(fleet.air.retained)
        second.advance(0)
        assert fleet.air.retained == envelopes
        assert assignment(fleet, "d0").counter == 1
        for name in fleet.keys:
            fleet.device(name).run()
        assert not second.advance(0)
        assert second.campaign.status is Status.SUCCEEDED

    def test_one_that_stops_it_stops_it_for_all(self, fleet):
        fleet.create(("d0",), ("d1", "d2"))
        rollout = fleet.rollout()
        rollout.advance(0)
        campaign, _ = fleet.campaigns.load("c")
        campaign.stop("bad pictures")
        assert fleet.campaigns.save("c", campaign)
        fleet.device("d0").run()
        assert not rollout.advance(0)
        assert (rollout.campaign.status, rollout.campaign.reason) == (
            Status.STOPPED,
            "bad pictures",
        )
        assert Topics(PREFIX, "d1").assignment not in fleet.air.retained
        assert fleet.campaigns.status("c") == (Status.STOPPED, "bad pictures")

    def test_nobody_is_assigned_in_a_campaign_that_was_stopped_a_moment_ago(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        campaign, _ = fleet.campaigns.load("c")
        campaign.stop("bad pictures")
        fleet.campaigns.save("c", campaign)
        assert rollout._assigner.assign(["d0"], 1) == []

    def test_the_first_end_of_a_campaign_is_the_one_that_is_kept(self, fleet):
        fleet.create()
        ends = []
        campaign, _ = fleet.campaigns.load("c")
        for reason in ("first", "second"):
            campaign, _ = fleet.campaigns.load("c")
            campaign.status, campaign.reason = Status.STOPPED, reason
            fleet.campaigns.save("c", campaign, lambda _session, why=reason: ends.append(why))
        assert ends == ["first"]
        assert fleet.campaigns.status("c") == (Status.STOPPED, "first")


class TestLongCampaigns:
    def test_the_metadata_is_renewed_once_an_hour_and_told(self, fleet):
        fleet.create(deadline_s=1e6)
        asked = []

        def renew():
            asked.append(fleet.now())
            return ("trust", b"%d" % len(asked)) if len(asked) != 2 else None

        rollout = fleet.rollout(renew=renew)
        rollout.advance(0)
        for _ in range(9):
            fleet.house.now += RENEW_LOOK_S / 3
            rollout.advance(0)
        assert len(asked) == 3
        assert fleet.air.retained["trust"] == b"3"


class TestFloods:
    def test_garbage_on_every_topic_is_bounded_and_a_good_report_still_counts(self, fleet):
        fleet.create()
        rollout = fleet.rollout()
        rollout.advance(0)
        topics = [Topics(PREFIX, name) for name in ("d1", "stranger")]
        for number in range(3000):
            for topic in topics:
                for where in (
                    topic.update_report("main"),
                    topic.update_request,
                    topic.update_state(f"s{number}"),
                    f"{PREFIX}/x/y",
                    "elsewhere",
                ):
                    rollout.inbox.put(where, b"\xff" * 100)
                rollout.inbox.put(topic.update_report("main"), bytes(200_000))
        assert rollout.inbox.dropped["too many of one device"] > 20_000
        assert rollout.inbox.dropped["too large"] == 6000
        rollout.advance(0)
        assert rollout.router.foreign > 0
        assert rollout.router.reports.counts["not signed by the device"] <= 16
        assert len(rollout.router.board.rows) == 0
        assert rollout.router.answers.waiting == 0
        fleet.device("d0").run()
        rollout.advance(0)
        assert outcomes(rollout)["d0"] is Outcome.COMMITTED
