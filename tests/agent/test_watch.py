"""What `vigia watch` makes of messages as they arrive."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.commands.output import board_table, plain
from agent.watch import MAX_ROWS, Board

TOPIC = "vigia/v1/d/cam/door/detections"


def detections(
    seq=0, *, boot="b", ts=100.0, labels=("box", "box", "bag"), device="d", camera="door"
):
    return json.dumps(
        {
            "schema": "vigia.detections/1",
            "device": device,
            "cam": camera,
            "seq": seq,
            "boot": boot,
            "ts": ts,
            "dropped": 0,
            "replay": False,
            "frame": {"w": 10, "h": 10, "id": seq},
            "model": {"slot": "main"},
            "lat_ms": {"total": 1.0},
            "objects": [
                {"label": label, "cls": 0, "score": 0.5, "box": [0, 0, 1, 1]} for label in labels
            ],
        }
    ).encode()


@pytest.fixture
def board():
    return Board()


def test_row_has_rate_age_and_what_was_found(board):
    for number in range(11):
        row = board.take(TOPIC, detections(number, ts=100 + number / 10), number / 10, 101.5)
    assert row is board.rows["d", "door"]
    assert row.fps(1.0) == pytest.approx(10.0)
    assert row.age_ms == pytest.approx(500)
    assert row.labels() == "2 box, 1 bag"
    assert row.line() == "d door #10: 2 box, 1 bag (500 ms old)"
    assert (row.received, row.missed) == (11, 0)


def test_rate_falls_to_nothing_when_nothing_comes(board):
    for number in range(3):
        row = board.take(TOPIC, detections(number), number / 10, 100)
    assert row.fps(2.0) == pytest.approx(1.0)
    assert row.fps(60.0) == 0.0


def test_gaps_in_the_numbers_are_missed_messages_but_a_new_run_is_none(board):
    for seq, boot in [(0, "b"), (4, "b"), (0, "c"), (1, "c")]:
        row = board.take(TOPIC, detections(seq, boot=boot), 0, 100)
    assert row.missed == 3


def test_statuses_of_camera_and_device_are_kept(board):
    status = {"schema": "x", "state": "stalled", "reason": "no frame for 5 s"}
    board.take("a/b/d/cam/door/status", json.dumps(status).encode(), 0, 0)
    board.take("a/b/d/status", json.dumps({"schema": "x", "state": "online"}).encode(), 0, 0)
    assert board.rows["d", "door"].state == "stalled no frame for 5 s"
    assert board.devices == {"d": "online"}


@given(payload=st.binary(max_size=40), topic=st.sampled_from([TOPIC, "p/d/status", "status"]))
def test_garbage_is_counted_and_harms_nothing(payload, topic):
    board = Board()
    assert board.take(topic, payload, 0, 0) is None
    assert (board.foreign, board.rows, board.devices) == (1, {}, {})


def test_short_topic_of_a_status_is_none_of_ours(board):
    board.take("status", json.dumps({"schema": "x", "state": "online"}).encode(), 0, 0)
    assert (board.foreign, board.devices) == (1, {})


def test_broker_cannot_fill_the_memory(board):
    for number in range(MAX_ROWS + 10):
        board.take(TOPIC, detections(camera=f"c{number}"), 0, 100)
        board.take(f"p/d{number}/status", b'{"schema": "x", "state": "y"}', 0, 0)
    assert len(board.rows) == len(board.devices) == MAX_ROWS


def test_table_has_a_line_for_each_camera_and_device(board):
    def lines():
        console = Console(width=100, file=io.StringIO())
        console.print(board_table(board, 0.1))
        return [line.split() for line in console.file.getvalue().splitlines()[1:]]

    assert lines() == [["waiting", "for", "messages", "..."]]
    for seq in (0, 2):
        board.take(TOPIC, detections(seq, labels=["bag"]), seq / 20, 100.25)
    board.take("a/b/d/status", b'{"schema": "x", "state": "online"}', 0, 0)
    assert lines() == [["d", "door", "-", "10.0", "250", "1", "1", "bag"], ["d", "online"]]


def test_terminal_gets_no_control_characters(board):
    row = board.take(TOPIC, detections(labels=["\x1b[2Jbox"]), 0, 100)
    assert "\x1b" not in row.line()
    assert "\x1b" not in plain(row.labels()).plain
