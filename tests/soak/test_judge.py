from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.account import Account
from tests.soak.chaos import Hang
from tests.soak.judge import Seen, judge
from tests.soak.supervisor import Life


def life(rss=lambda _s: 100, descriptors=lambda _s: 20, seconds=1200) -> Life:
    samples = [(float(s), int(rss(s) * 2**20), descriptors(s)) for s in range(seconds)]
    return Life(0.0, 1.0, float(seconds), "killed", samples)


GOOD = Seen(
    Account(messages=10), [life()], [], 0, 0, [Hang(12.0, 3.0)], dropped=0, left=0, spool_fault=""
)  # fmt: skip


def broken(seen: Seen) -> list[str]:
    return [i.name for i in judge(seen) if i.ok is False]


def test_all_well():
    assert [i.ok for i in judge(GOOD)] == [True] * 10


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"crashes": ["code 1"]}, "ends only"),
        ({"tracebacks": 1}, "exception"),
        ({"lives": [life(rss=lambda s: 100 + s / 100)]}, "memory"),
        ({"lives": [life(descriptors=lambda s: 20 + s // 100)]}, "descriptors"),
        ({"told": Account(missing=1)}, "all messages"),
        ({"dropped": 1}, "all messages"),
        ({"left": 1}, "all messages"),
        ({"told": Account(late=1)}, "order"),
        ({"told": Account(unexplained=1)}, "add up"),
        ({"spool_fault": "bad"}, "whole"),
        ({"hangs": [Hang(30.0, 1.0)]}, "watchdog"),
        ({"hangs": [Hang(12.0, 16.0)]}, "watchdog"),
        ({"exit_code": 1}, "stop"),
    ],
)
def test_each_invariant_can_be_broken_alone(change, word):
    (name,) = broken(replace(GOOD, **change))
    assert word in name


def test_what_a_short_soak_cannot_tell_is_not_judged():
    seen = replace(GOOD, lives=[life(seconds=590)], hangs=[])
    assert [i.name.split()[0] for i in judge(seen) if i.ok is None] == [
        "memory",
        "descriptors",
        "the",
    ]


def test_the_start_of_a_life_is_no_growth():
    assert not broken(replace(GOOD, lives=[life(rss=lambda s: min(s, 300))]))
