from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.mqttmessage import Message
from agent.mqttqueue import BLAMELESS_BYTES, MAX_SENDS, MAX_WAITING, SUSPECT_SENDS, SendQueue


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
                queue.give_up()
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


def retained(topic: str, size: int = 1) -> Message:
    return Message(topic, b"x" * size, qos=1, retain=True)


def send_in_vain(queue: SendQueue, times: int) -> None:
    for _ in range(times):
        drain(queue)
        queue.disconnected()


def test_a_suspected_retained_message_is_sent_alone_after_the_others_and_before_what_waits():
    queue = SendQueue()
    queue.keep(retained("bad", 2))
    send_in_vain(queue, SUSPECT_SENDS)
    queue.keep(retained("good"))
    queue.take(message(7))
    assert drain(queue) == [b"x"]
    queue.acknowledged(1)
    assert drain(queue) == [b"xx"]
    queue.acknowledged(1)
    assert drain(queue) == [b"7"]


def test_a_large_retained_message_is_given_up_until_a_newer_one_comes():
    queue = SendQueue()
    queue.keep(retained("t", BLAMELESS_BYTES + 1))
    send_in_vain(queue, MAX_SENDS)
    assert queue.next().hopeless
    queue.give_up()
    queue.disconnected()
    assert queue.empty
    queue.keep(retained("t", BLAMELESS_BYTES + 1))
    assert not queue.next().hopeless


def test_giving_up_an_old_retained_message_spares_the_newer_one_of_its_topic():
    queue = SendQueue()
    queue.keep(retained("t", BLAMELESS_BYTES + 1))
    queue.next()
    queue.keep(retained("t", 1))
    queue.give_up()
    assert drain(queue) == [b"x"]


def test_a_small_retained_message_is_told_for_ever():
    queue = SendQueue()
    queue.keep(retained("t", BLAMELESS_BYTES))
    send_in_vain(queue, 2 * MAX_SENDS)
    assert not queue.next().hopeless


def test_a_retained_message_that_arrives_each_time_is_never_suspected():
    queue = SendQueue()
    queue.keep(retained("t"))
    queue.keep(retained("u"))
    for _ in range(2 * MAX_SENDS):
        assert len(drain(queue)) == 2
        queue.acknowledged(1)
        queue.acknowledged(2)
        queue.disconnected()


def test_a_retained_message_that_needs_no_acknowledgement_is_never_suspected():
    queue = SendQueue()
    queue.keep(retained("t"))
    for _ in range(2 * MAX_SENDS):
        entry = queue.next()
        assert not entry.suspect
        entry.sends += 1
        queue.done()
        queue.disconnected()


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
            self.queue.give_up()
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
