import json

import pytest

from agent.bundle.documents import REPORT, Report
from agent.bundle.dsse import sign
from agent.bundle.softkeys import SoftKeys
from agent.wire.schema import COMMAND_REPLY
from agent.wire.topics import Topics
from fleet.commanding import Answer, Hearing
from fleet.link import Inbox
from fleet.tables import Assignment, Campaign, Device
from tests.fakes.smallfleet import PREFIX, SmallFleet

NONCES = {"0" * 32: "d0", "1" * 32: "d1"}


@pytest.fixture
def fleet(tmp_path):
    """A fleet whose devices have committed a model."""
    fleet = SmallFleet(tmp_path, count=2)
    fleet.publish()
    fleet.create()
    rollout = fleet.rollout()
    rollout.advance(0)
    for name in fleet.keys:
        fleet.device(name).run()
    rollout.advance(0)
    yield fleet
    fleet.database.close()


class Clock:
    """Each look at it takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def hearing(fleet):
    return Hearing(fleet.campaigns, PREFIX, list(fleet.keys), "main", Clock())


def reply(inbox, nonce, device=None, **changes):
    usual = {"schema": COMMAND_REPLY, "device": "d", "ts": 1.0, "nonce": nonce, "done": True}
    topic = Topics(PREFIX, device or NONCES[nonce]).reply(nonce)
    inbox.put(topic, json.dumps({**usual, **changes}).encode())


def report(inbox, fleet, device, keys=None, **changes):
    usual = {
        "device": device,
        "slot": "main",
        "campaign": "c",
        "counter": 1,
        "sha256": fleet.offer.digest,
        "release_counter": 1,
        "outcome": "ROLLED_BACK",
        "key_level": "L0",
        "boot": "b",
        "at": 1,
    }
    signer = (keys or fleet.keys[device]).signer()
    envelope = sign(REPORT, Report(**usual | changes), [signer])
    inbox.put(Topics(PREFIX, device).update_report("main"), envelope)


def campaign_row(fleet, name):
    return {
        "name": name,
        "digest": fleet.offer.digest,
        "slot": name,
        "state": "SUCCEEDED",
        "rules": "{}",
        "devices": '["d0"]',
        "operator": "ann",
        "created_at": 1,
    }


def outcome(fleet, device):
    with fleet.database.reading() as session:
        return session.get(Assignment, (device, 1)).outcome


def test_answers_and_signed_reports_are_heard(fleet, hearing):
    inbox = Inbox(PREFIX)
    reply(inbox, "0" * 32)
    reply(inbox, "1" * 32, done=False, reason="there is no model before")
    report(inbox, fleet, "d0")
    found = hearing.answers(inbox, NONCES, 100.0)
    assert found == {"d0": Answer(True), "d1": Answer(False, "there is no model before")}
    assert outcome(fleet, "d0") == "ROLLED_BACK"
    assert outcome(fleet, "d1") == "COMMITTED"


def test_a_rollback_of_one_slot_is_heard_though_another_was_assigned_since(fleet):
    with fleet.database.session() as session:
        session.add(Campaign(**campaign_row(fleet, "side")))
        session.get(Device, "d0").counter = 2
        session.flush()
        session.add(
            Assignment(
                device="d0",
                counter=2,
                campaign="side",
                slot="side",
                digest=fleet.offer.digest,
                stage=1,
                envelope=b"",
                deadline=1,
                assigned_at=1,
            )
        )
    inbox = Inbox(PREFIX)
    reply(inbox, "0" * 32)
    report(inbox, fleet, "d0")
    hearing = Hearing(fleet.campaigns, PREFIX, ["d0"], "main", Clock())
    hearing.answers(inbox, {"0" * 32: "d0"}, 100.0)
    assert outcome(fleet, "d0") == "ROLLED_BACK"


def test_a_report_that_the_device_did_not_sign_changes_nothing(fleet, hearing):
    inbox = Inbox(PREFIX)
    reply(inbox, "0" * 32)
    report(inbox, fleet, "d0", SoftKeys.generate())
    report(inbox, fleet, "d1", counter=2)
    hearing.answers(inbox, NONCES, 10.0)
    assert outcome(fleet, "d0") == "COMMITTED"
    assert outcome(fleet, "d1") == "COMMITTED"


def test_the_same_report_twice_is_kept_once(fleet, hearing):
    inbox = Inbox(PREFIX)
    for _ in range(2):
        report(inbox, fleet, "d0")
    hearing.answers(inbox, NONCES, 5.0)
    assert outcome(fleet, "d0") == "ROLLED_BACK"


@pytest.mark.parametrize(
    "changes",
    [{"schema": "vigia.status/1"}, {"done": "yes"}, {"done": None}],
)
def test_what_is_no_answer_is_passed_over(hearing, changes):
    inbox = Inbox(PREFIX)
    reply(inbox, "0" * 32, **changes)
    inbox.put(Topics(PREFIX, "d0").reply("0" * 32), b"\xff")
    assert hearing.answers(inbox, NONCES, 5.0)["d0"] == Answer()


def test_nobody_answers_for_another_device(hearing):
    inbox = Inbox(PREFIX)
    reply(inbox, "0" * 32, device="d1")
    assert hearing.answers(inbox, NONCES, 5.0) == {"d0": Answer(), "d1": Answer()}
