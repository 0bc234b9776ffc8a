import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.documents import COMMAND, REPORT, Report
from agent.bundle.dsse import key_of_pem, sign
from agent.bundle.softkeys import SoftKeys
from agent.wire.updatestate import UpdateState, encode_update_state
from fleet.watching import (
    MAX_SLOTS,
    MAX_STATE_BYTES,
    REPORTS_BURST,
    STATES_BURST,
    Board,
    Expected,
    Reports,
)

DIGEST = "ab" * 32


DEVICE, OTHER = SoftKeys.generate(), SoftKeys.generate()


def key_of(keys):
    return key_of_pem(keys.sign_public_pem)


def report(**changes):
    usual = {
        "device": "d",
        "slot": "main",
        "campaign": "c",
        "counter": 7,
        "sha256": DIGEST,
        "release_counter": 3,
        "outcome": "COMMITTED",
        "key_level": "L0",
        "boot": "b",
        "at": 1_700_000_000,
    }
    return Report(**{**usual, **changes})


def envelope(keys=DEVICE, payload_type=REPORT, **changes):
    return sign(payload_type, report(**changes), [keys.signer()])


@pytest.fixture
def reports():
    reports = Reports()
    reports.expect(Expected(key_of(DEVICE), "d", "main", "c", 7, DIGEST, 3))
    return reports


class TestReports:
    def test_the_signed_report_of_the_assignment_counts(self, reports):
        assert reports.judge("d", envelope(), 0.0) == report()
        assert reports.counts == {"counted": 1}

    @pytest.mark.parametrize("outcome", ["REJECTED", "ROLLED_BACK"])
    def test_so_does_one_of_a_failure(self, reports, outcome):
        assert reports.judge("d", envelope(outcome=outcome), 0.0).outcome == outcome

    def test_one_that_another_device_signed_is_no_success(self, reports):
        assert reports.judge("d", envelope(OTHER), 0.0) is None
        assert reports.counts == {"not signed by the device": 1}

    def test_one_that_nobody_signed_is_no_success(self, reports):
        unsigned = json.loads(envelope())
        unsigned["signatures"] = []
        assert reports.judge("d", json.dumps(unsigned).encode(), 0.0) is None
        assert reports.judge("d", report().encode(), 0.0) is None
        assert reports.counts == {"not signed by the device": 2}

    def test_one_that_was_altered_is_no_success(self, reports):
        good, bad = json.loads(envelope(counter=6)), json.loads(envelope(OTHER))
        bad["signatures"] = good["signatures"]
        assert reports.judge("d", json.dumps(bad).encode(), 0.0) is None

    def test_a_signature_over_something_else_is_no_success(self, reports):
        assert reports.judge("d", envelope(payload_type=COMMAND), 0.0) is None
        assert reports.counts == {"not signed by the device": 1}

    @pytest.mark.parametrize(
        "change",
        [
            {"counter": 6},
            {"counter": 8},
            {"sha256": "cd" * 32},
            {"release_counter": 2},
            {"campaign": "before"},
            {"slot": "other"},
            {"device": "e"},
        ],
    )
    def test_one_of_another_assignment_is_no_success(self, reports, change):
        assert reports.judge("d", envelope(**change), 0.0) is None
        assert reports.counts == {"of another assignment": 1}

    def test_one_on_another_devices_topic_is_no_success(self, reports):
        reports.expect(Expected(key_of(OTHER), "e", "main", "c", 7, DIGEST, 3))
        assert reports.judge("e", envelope(), 0.0) is None

    def test_of_a_device_that_was_assigned_nothing_is_none(self, reports):
        assert reports.judge("stranger", envelope(), 0.0) is None
        assert reports.counts == {"of strangers": 1}

    def test_only_the_newest_assignment_is_waited_for(self, reports):
        reports.expect(Expected(key_of(DEVICE), "d", "main", "c2", 8, DIGEST, 3))
        assert reports.judge("d", envelope(), 0.0) is None
        assert reports.judge("d", envelope(campaign="c2", counter=8), 0.0)

    def test_a_flood_is_bounded_and_keeps_no_other_device_out(self, reports):
        reports.expect(Expected(key_of(OTHER), "e", "main", "c", 1, DIGEST, 3))
        for _ in range(10_000):
            reports.judge("d", b"garbage", 0.0)
        assert reports.counts["not signed by the device"] == REPORTS_BURST
        assert reports.counts["too soon"] == 10_000 - REPORTS_BURST
        assert reports.judge("e", envelope(OTHER, device="e", counter=1), 0.0)

    @given(st.binary(max_size=300))
    def test_garbage_is_counted(self, payload):
        reports = Reports()
        reports.expect(Expected(key_of(DEVICE), "d", "main", "c", 7, DIGEST, 3))
        assert reports.judge("d", payload, 0.0) is None
        assert reports.counts == {"not signed by the device": 1}


def state(slot="main", **changes):
    told = UpdateState(slot=slot, state="FETCHING", **changes)
    return encode_update_state(told, device="d", boot="b", ts=1.0)


class TestBoard:
    def test_the_newest_words_of_each_slot_are_kept(self):
        board = Board(("d",))
        board.take("d", "main", state(done=1, total=4), 0.0)
        board.take("d", "main", state(done=2, total=4), 0.1)
        board.take("d", "side", state("side"), 0.2)
        assert board.rows["d", "main"].percent == 50.0
        assert set(board.rows) == {("d", "main"), ("d", "side")}

    def test_strangers_garbage_and_wrong_slots_are_counted(self):
        board = Board(("d",))
        board.take("stranger", "main", state(), 0.0)
        board.take("d", "main", b"{", 0.0)
        board.take("d", "main", b" " * MAX_STATE_BYTES + state(), 0.0)
        board.take("d", "other", state(), 0.0)
        assert board.rows == {}
        assert board.counts == {"of strangers": 1, "garbage": 3}

    def test_a_flood_is_bounded(self):
        board = Board(("d",))
        for number in range(10_000):
            board.take("d", f"s{number}", state(f"s{number}"), 0.0)
        assert len(board.rows) == MAX_SLOTS
        assert board.counts["too soon"] == 10_000 - STATES_BURST
        board.take("d", "s1", state("s1", done=1, total=1), 1000.0)
        assert board.rows["d", "s1"].percent == 100.0

    @given(st.binary(max_size=300))
    def test_garbage_never_raises(self, payload):
        board = Board(("d",))
        board.take("d", "main", payload, 0.0)
        assert board.rows == {}
