from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.mqttmessage import Message
from agent.mqttqueue import MAX_SENDS, MAX_WAITING, SendQueue


def message(number: int) -> Message:
    return Message("t", b"%d" % number, qos=1)


def drain(queue: SendQueue, first_id: int = 1) -> list[bytes]:
    """Send everything on one connection; payloads in order."""
    sent = []
    while (entry := queue.next()) is not None:
        entry.sends += 1
        queue.sent(first_id + len(sent))
        sent.append(entry.message.payload)
    return sent


def test_what_was_not_acknowledged_is_sent_again_before_anything_newer():
    queue = SendQueue()
    for number in range(3):
        queue.take(message(number))
    assert drain(queue) == [b"0", b"1", b"2"]
    queue.acknowledged(2)
    queue.disconnected()
    queue.take(message(3))
    assert drain(queue) == [b"0", b"2", b"3"]


def test_a_message_in_hand_when_the_connection_ends_comes_after_those_sent_before_it():
    queue = SendQueue()
    for number in range(3):
        queue.take(message(number))
    queue.next()
    queue.sent(1)
    queue.next()
    queue.disconnected()
    assert drain(queue) == [b"0", b"1", b"2"]


def test_only_the_newest_retained_message_of_a_topic_is_told_and_first():
    queue = SendQueue()
    queue.take(message(0))
    for text in (b"old", b"new"):
        queue.keep(Message("state", text, qos=1, retain=True))
    assert drain(queue) == [b"new", b"0"]
    queue.disconnected()
    assert drain(queue) == [b"new", b"0"]


def test_an_old_retained_message_never_comes_after_a_newer_one():
    queue = SendQueue()
    queue.keep(Message("state", b"online", qos=1, retain=True))
    drain(queue)
    queue.keep(Message("state", b"offline", qos=1, retain=True))
    queue.disconnected()
    assert drain(queue) == [b"offline"]


def test_a_message_that_ends_connections_is_found_and_its_neighbours_are_spared():
    queue = SendQueue()
    for number in range(4):
        queue.take(message(number))
    bad = b"1"
    arrived, given_up = set(), set()
    for _ in range(20):
        packet = 0
        pending = {}
        while (entry := queue.next()) is not None:
            if entry.hopeless:
                given_up.add(entry.message.payload)
                queue.done()
                continue
            packet += 1
            entry.sends += 1
            queue.sent(packet)
            pending[packet] = entry.message.payload
            # The broker answers only when nothing more comes at once, or ends the connection.
            if queue.next() is None:
                if bad in pending.values():
                    break
                for packet_id, payload in pending.items():
                    queue.acknowledged(packet_id)
                    arrived.add(payload)
                pending.clear()
            else:
                queue.disconnected()
                break
        queue.disconnected()
        if queue.empty:
            break
    assert given_up == {bad}
    assert arrived == {b"0", b"2", b"3"}


class Machine(RuleBasedStateMachine):
    """Against a list: nothing is lost, nothing comes out of order, nothing is too much."""

    def __init__(self):
        super().__init__()
        self.queue = SendQueue()
        self.open: list[bytes] = []
        self.sent: dict[int, bytes] = {}
        self.number = 0
        self.packet = 0
        self.in_hand = None

    @rule(count=st.integers(1, MAX_WAITING))
    def take(self, count):
        for _ in range(count):
            self.number += 1
            if self.queue.take(message(self.number)):
                self.open.append(b"%d" % self.number)
            else:
                assert len(self.open) == MAX_WAITING

    @precondition(lambda self: self.in_hand is None)
    @rule()
    def next(self):
        waiting = [p for p in self.open if p not in self.sent.values()]
        entry = self.queue.next()
        if entry is None:
            assert not waiting or self.sent
        else:
            assert entry.message.payload == waiting[0]
            self.in_hand = entry

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def send(self):
        if self.in_hand.hopeless:
            assert self.in_hand.sends == MAX_SENDS
            self.queue.done()
            self.open.remove(self.in_hand.message.payload)
        else:
            self.in_hand.sends += 1
            self.packet += 1
            self.queue.sent(self.packet)
            self.sent[self.packet] = self.in_hand.message.payload
        self.in_hand = None

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 1000))
    def acknowledge(self, which):
        packet = sorted(self.sent)[which % len(self.sent)]
        payload = self.sent.pop(packet)
        assert self.queue.acknowledged(packet).payload == payload
        assert self.queue.acknowledged(packet) is None
        self.open.remove(payload)

    @rule()
    def disconnect(self):
        self.queue.disconnected()
        self.sent.clear()
        self.in_hand = None

    @invariant()
    def counts_agree(self):
        assert self.queue.load == len(self.open) <= MAX_WAITING
        assert self.queue.unacknowledged == len(self.sent)
        assert self.queue.empty == (not self.open)


TestMachine = Machine.TestCase
