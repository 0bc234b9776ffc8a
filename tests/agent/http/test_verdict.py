"""What is wrong, in words."""

from __future__ import annotations

import pytest

from agent.http.verdict import reasons


def test_nothing_is_wrong_where_all_is_well(agent):
    agent.parts = {
        "broker": {"connected": True},
        "spool": {"disk": "ok", "memory_messages": 3},
        "governor": {"level": 0},
    }
    agent.cameras["spare"] = {"state": "disabled"}
    agent.cameras["clip"] = {"state": "ended"}
    assert reasons(agent.sources(), ()) == []


def test_a_stage_that_hangs_comes_first(agent):
    agent.cameras["gate"]["state"] = "failed"
    assert reasons(agent.sources(), ["publisher"]) == [
        "publisher makes no progress",
        "camera gate: failed",
    ]


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("broker", {"connected": False}, ["no broker: not connected yet"]),
        ("broker", {"connected": False, "reason": "refused"}, ["no broker: refused"]),
        ("spool", {"disk": "ok"}, []),
        ("spool", {"disk": "none"}, []),
        ("spool", {"disk": "the disk is full"}, ["spool: the disk is full"]),
        (
            "governor",
            {"level": 2, "fps_limits": {"a": 12.0, "b": 12.0, "c": 5.5}, "reason": "gpu at 95 °C"},
            [
                ("slowed down to stay cool: gpu at 95 °C (a, b at most 12 frames a second; "
                "c at most 5.5 frames a second)")
            ],
        ),
        (
            "governor",
            {"level": 1, "light_engines": ["main"]},
            [("slowed down to stay cool: waits until it is cool for long enough "
             "(lighter engine: main)")],
        ),
    ],
)  # fmt: skip
def test_each_part_says_what_is_wrong_with_it(agent, part, values, words):
    agent.parts[part] = values
    assert reasons(agent.sources(), ()) == words


def test_what_is_kept_for_a_broker_that_is_away_is_counted(agent):
    agent.parts = {
        "broker": {"connected": False, "reason": "refused"},
        "spool": {"disk": "ok", "memory_messages": 12, "disk_messages": 18_000},
    }
    assert reasons(agent.sources(), ()) == ["no broker: refused; 18,012 messages are kept for it"]


def test_settings_updates_and_models_count_too(agent):
    agent.troubles = ["the configuration has a mistake; the last good one serves"]
    agent.models["main"]["reason"] = "the output holds NaN"
    assert reasons(agent.sources(), ()) == [
        "the configuration has a mistake; the last good one serves",
        "model main: the output holds NaN",
    ]
