import io
import json

import pytest
from rich.console import Console

from agent.wire.topics import Topics
from agent.wire.updatestate import UpdateState, encode_update_state
from fleet.campaign import Outcome
from fleet.commands.rollouttable import MAX_ROWS, as_json, lines, live_table, summary
from tests.fakes.smallfleet import PREFIX, SmallFleet


@pytest.fixture
def rollout(tmp_path):
    fleet = SmallFleet(tmp_path)
    fleet.publish()
    fleet.create()
    rollout = fleet.rollout()
    rollout.advance(0)
    yield rollout
    fleet.database.close()


def drawn(rollout):
    console = Console(file=io.StringIO(), width=160)
    console.print(live_table(rollout))
    return console.file.getvalue()


def hear(rollout, device="d0", **changes):
    usual = {"slot": "main", "state": "FETCHING", "campaign": "c"}
    payload = encode_update_state(
        UpdateState(**{**usual, **changes}), device=device, boot="b", ts=1.0
    )
    rollout.router.take(Topics(PREFIX, device).update_state("main"), payload, 0.0)


def test_what_a_device_tells_is_seen(rollout):
    hear(rollout, done=1, total=4, rate=2.0 * 2**20)
    (line,) = [line for line in drawn(rollout).splitlines() if line.startswith("d0")]
    assert line.split() == ["d0", "1", "WAITING", "FETCHING", "25", "2.0"]


def test_words_of_another_campaign_are_not_shown(rollout):
    hear(rollout, campaign="before", state="COMMITTED")
    assert "COMMITTED" not in drawn(rollout)


def test_what_terminals_obey_is_not_printed(rollout):
    hear(rollout, state="\x1b]0;owned\x07", reason="\x1b[2J")
    text = drawn(rollout) + "".join(lines(rollout, {}))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_lines_tell_only_what_is_new(rollout):
    told = {}
    hear(rollout)
    assert lines(rollout, told) == ["d0: FETCHING"]
    assert lines(rollout, told) == []
    rollout.campaign.finished("d0", Outcome.REJECTED)
    hear(rollout, state="REJECTED", reason="too slow: 9 ms > 5 ms")
    assert lines(rollout, told) == ["d0: REJECTED; too slow: 9 ms > 5 ms"]


def test_the_summary_counts_all(rollout):
    rollout.campaign.finished("d0", Outcome.COMMITTED)
    assert summary(rollout.campaign) == "RUNNING, stage 1 of 1: 2 WAITING, 1 COMMITTED of 3"


def test_json_has_every_device(rollout):
    rollout.campaign.finished("d1", Outcome.ROLLED_BACK)
    rollout.act()
    value = json.loads(as_json(rollout))
    assert value["status"] == "STOPPED"
    assert value["devices"] == {"d0": "LEFT", "d1": "ROLLED_BACK", "d2": "LEFT"}


def test_many_devices_are_cut_short_and_failures_come_first(tmp_path):
    fleet = SmallFleet(tmp_path, count=MAX_ROWS + 20)
    fleet.create(max_errors=1.0, success=0.0)
    rollout = fleet.rollout()
    rollout.advance(0)
    rollout.campaign.finished(f"d{MAX_ROWS + 5}", Outcome.REJECTED)
    text = drawn(rollout)
    fleet.database.close()
    assert text.splitlines()[1].startswith(f"d{MAX_ROWS + 5} ")
    assert "... and 20 more" in text
