from __future__ import annotations

import pytest

from agent.mqttsubscriptions import ASK_TOGETHER, LEAVE_TOGETHER, Subscriptions


def take(_topic: str, _payload: bytes) -> None:
    """Somebody who wants messages."""


def other(_topic: str, _payload: bytes) -> None:
    """Somebody else."""


@pytest.fixture
def known():
    return Subscriptions()


def add(known, *topics, qos=1):
    for topic in topics:
        known.add(topic, take, qos)


def ask(known, packet_id):
    asked = [topic for topic, _ in known.ask()]
    known.asked(packet_id, asked)
    return asked


def test_topics_are_asked_for_together_and_once(known):
    add(known, "a", "b", "b")
    known.add("c", take, 0)
    assert known.ask() == [("a", 1), ("b", 1), ("c", 0)]
    assert known.ask() == []


def test_no_packet_has_too_many(known):
    add(known, *(str(n) for n in range(ASK_TOGETHER + 1)))
    assert len(known.ask()) == ASK_TOGETHER
    assert known.ask() == [(str(ASK_TOGETHER), 1)]


def test_a_message_is_for_those_whose_filter_fits(known):
    known.add("a/1", take, 1)
    known.add("a/+", other, 1)
    assert known.callbacks("a/1") == [other, take]
    assert known.callbacks("a/2") == [other]
    assert known.callbacks("b") == []
    known.add("a/1", other, 1)
    assert known.callbacks("a/1") == [other, other]
    known.remove(["a/+", "a/1"])
    assert known.callbacks("a/1") == []


def test_a_new_connection_is_asked_for_everything_that_is_still_wanted(known):
    add(known, "a", "b", "#")
    ask(known, 1)
    known.remove(["a"])
    known.connected()
    assert [topic for topic, _ in known.ask()] == ["b", "#"]
    assert known.leave() == []


def test_what_was_answered_is_asked_for_again_what_is_on_its_way_is_not(known):
    add(known, "a")
    ask(known, 1)
    add(known, "a")
    assert known.ask() == []
    assert known.answered(1) == ("a",)
    add(known, "a")
    assert known.ask() == [("a", 1)]
    known.connected()
    assert known.answered(1) == ()


def test_leaving_waits_until_it_is_worth_a_packet(known):
    topics = [str(n) for n in range(LEAVE_TOGETHER)]
    add(known, "stays", *topics)
    ask(known, 1)
    known.remove(topics[:-1])
    assert known.leave() == []
    known.remove(topics[-1:])
    assert known.leave() == topics
    assert known.leave() == []


def test_who_wants_nothing_any_more_leaves_at_once(known):
    add(known, "a")
    ask(known, 1)
    known.remove(["a"])
    assert known.leave() == ["a"]


def test_what_was_never_asked_for_is_not_left(known):
    add(known, "a")
    known.remove(["a", "never there"])
    assert known.ask() == []
    assert known.leave() == []


def test_whoever_comes_back_is_not_thrown_out(known):
    add(known, "a")
    ask(known, 1)
    known.answered(1)
    known.remove(["a"])
    add(known, "a")
    assert known.ask() == [("a", 1)]
    assert known.leave() == []
