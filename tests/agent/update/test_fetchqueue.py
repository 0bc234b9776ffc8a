from __future__ import annotations

import threading

from agent.update.fetchqueue import OVERHEAD_BYTES, FetchQueue
from agent.update.fetchrate import NOTES, SPAN_S, Rate

LONG_S = 30.0


def put(queue, *topics, size=100):
    for topic in topics:
        queue.put(topic, topic[:1].encode() * size)


def test_messages_come_out_in_order_some_at_a_time():
    queue = FetchQueue(10_000)
    put(queue, "a", "b", "c", "d", size=1)
    assert queue.take(3, 0) == [("a", b"a"), ("b", b"b"), ("c", b"c")]
    assert queue.take(3, 0) == [("d", b"d")]
    assert queue.take(3, 0) == []


def test_the_newest_of_a_topic_counts_and_repetitions_take_no_room():
    queue = FetchQueue(2 * (100 + OVERHEAD_BYTES))
    put(queue, "a", "b")
    for number in range(100):
        queue.put("a", b"%d" % number)
    assert queue.dropped == 100
    assert queue.take(9, 0) == [("a", b"99"), ("b", b"b" * 100)]
    put(queue, "a", "b")
    assert queue.dropped == 100
    assert len(queue.take(9, 0)) == 2


def test_what_does_not_fit_is_dropped_until_there_is_room_again():
    queue = FetchQueue(3 * (100 + OVERHEAD_BYTES))
    put(queue, "a", "b", "c", "d", "e")
    assert queue.dropped == 2
    assert len(queue.take(2, 0)) == 2
    put(queue, "f", "g")
    assert queue.dropped == 2
    put(queue, "h", size=0)
    assert queue.dropped == 3
    assert [topic for topic, _ in queue.take(9, 0)] == ["c", "f", "g"]


def test_a_flood_of_empty_messages_is_bounded():
    queue = FetchQueue(10 * OVERHEAD_BYTES)
    put(queue, *map(str, range(1000)), size=0)
    assert queue.dropped == 990


def test_whoever_waits_is_woken():
    queue = FetchQueue(10_000)
    taken = []
    thread = threading.Thread(target=lambda: taken.extend(queue.take(1, LONG_S)))
    thread.start()
    queue.put("t", b"x")
    thread.join(LONG_S)
    assert taken == [("t", b"x")]


def test_a_rate_is_that_of_late():
    rate = Rate(0.0)
    assert rate.note(0.0, 100) == 0.0
    assert rate.note(2.0, 400) == 200.0
    assert rate.note(SPAN_S + 2.0, 400) == 0.0
    assert rate.note(SPAN_S + 4.0, 600) > 0.0


def test_a_rate_that_is_asked_for_often_needs_no_memory():
    rate = Rate(0.0)
    for step in range(10 * NOTES):
        told = rate.note(step / 100, step)
    assert len(rate._notes) == NOTES
    assert 99 < told < 101
