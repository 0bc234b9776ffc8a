from __future__ import annotations

import threading

from agent.update.fetchqueue import OVERHEAD_BYTES, FetchQueue
from agent.update.fetchrate import NOTES, SPAN_S, Rate

LONG_S = 30.0


def test_messages_come_out_in_order_some_at_a_time():
    queue = FetchQueue(10_000)
    for number in range(5):
        queue.put("t", b"%d" % number)
    assert [payload for _, payload in queue.take(3, 0)] == [b"0", b"1", b"2"]
    assert queue.take(3, 0) == [("t", b"3"), ("t", b"4")]
    assert queue.take(3, 0) == []


def test_what_does_not_fit_is_dropped_until_there_is_room_again():
    size = 100
    queue = FetchQueue(3 * (size + OVERHEAD_BYTES))
    for _ in range(5):
        queue.put("t", bytes(size))
    assert queue.dropped == 2
    assert len(queue.take(2, 0)) == 2
    queue.put("t", bytes(size))
    queue.put("t", bytes(size))
    assert queue.dropped == 2
    queue.put("t", b"")
    assert queue.dropped == 3
    assert len(queue.take(9, 0)) == 3


def test_a_flood_of_empty_messages_is_bounded():
    queue = FetchQueue(10 * OVERHEAD_BYTES)
    for _ in range(1000):
        queue.put("t", b"")
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
