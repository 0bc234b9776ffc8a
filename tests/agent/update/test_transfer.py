from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.update.transfer import MAX_BAD, MAX_REQUESTED, NOTHING, Transfer, ranges
from agent.wire.updaterequest import MAX_RANGES
from tests.fakes.blocks import make_blocks

STALL_S = 60.0
TEN = make_blocks(10, 16, last=5)


def begun(window=3, present=(), blocks=TEN, now=0.0):
    transfer = Transfer(blocks.index, present, window, STALL_S)
    return transfer, transfer.reconnected(now)


def feed(transfer, *numbers, blocks=TEN, now=0.0):
    return [transfer.received(number, blocks.blocks[number], now) for number in numbers]


def test_a_window_is_asked_for_and_slides_by_one():
    transfer, first = begun()
    assert first.subscribe == (0, 1, 2)
    (step,) = feed(transfer, 1)
    assert step.keep
    assert (step.subscribe, step.unsubscribe) == ((3,), (1,))
    (step,) = feed(transfer, 0)
    assert (step.subscribe, step.unsubscribe) == ((4,), (0,))
    assert transfer.present == 2


def test_a_large_window_slides_when_it_is_worth_a_packet():
    many = make_blocks(64, 16)
    transfer, first = begun(window=16, blocks=many)
    assert first.subscribe == tuple(range(16))
    steps = feed(transfer, 3, 0, 1, 2, blocks=many)
    assert [step.subscribe for step in steps] == [(), (16, 17), (), (18, 19)]


def test_what_is_there_is_not_asked_for():
    transfer, first = begun(present={0, 2, 3, 9})
    assert first.subscribe == (1, 4, 5)
    feed(transfer, 1, 4, 5)
    steps = feed(transfer, 6, 7, 8)
    assert [step.done for step in steps] == [False, False, True]
    assert transfer.done


def test_with_everything_there_nothing_is_asked_for():
    transfer, first = begun(present=range(10))
    assert (first.subscribe, first.done, transfer.done) == ((), True, True)
    assert transfer.tick(10 * STALL_S) == NOTHING


def test_a_window_of_none_is_one_of_one():
    assert begun(window=0)[1].subscribe == (0,)


def test_the_last_block_is_shorter():
    transfer, _ = begun(window=10)
    assert feed(transfer, 9)[0].keep
    assert transfer.counts == {"blocks": 1, "bytes": 5}


def test_a_new_connection_is_asked_for_the_window_alone():
    transfer, _ = begun()
    feed(transfer, 0, 2)
    assert transfer.reconnected(1.0).subscribe == (1, 3, 4)


@pytest.mark.parametrize(
    ("number", "payload", "count"),
    [
        (1, TEN.blocks[2], "bad"),
        (1, TEN.blocks[1][:-1], "bad"),
        (1, TEN.blocks[1] + b"\0", "bad"),
        (1, b"", "empty"),
        (7, TEN.blocks[7], "unasked"),
        (10, TEN.blocks[0], "unasked"),
        (-1, TEN.blocks[9], "unasked"),
        (2**40, b"x", "unasked"),
        (0, TEN.blocks[0], "duplicates"),
        (0, b"anything", "duplicates"),
    ],
    ids=str,
)
def test_what_is_not_a_block_that_was_asked_for_is_not_kept(number, payload, count):
    transfer, _ = begun()
    feed(transfer, 0)
    step = transfer.received(number, payload, 0.0)
    assert not step.keep
    assert not step.subscribe
    assert transfer.counts[count] == 1
    assert transfer.present == 1


def test_a_bad_block_is_asked_of_the_controller_and_the_third_ends_it():
    transfer, _ = begun()
    steps = [transfer.received(n, b"forged", 0.0) for n in (0, 1, 1)]
    assert [step.request for step in steps] == [((0, 0),), ((1, 1),), ()]
    assert [bool(step.failed) for step in steps] == [False, False, True]
    assert "3 blocks are not what the signed index says" in transfer.failed
    assert feed(transfer, 0)[0].failed == transfer.failed
    assert transfer.tick(10 * STALL_S).request == ()
    assert transfer.present == 0


def test_the_right_block_after_a_bad_one_is_kept():
    transfer, _ = begun()
    transfer.received(0, b"forged", 0.0)
    assert feed(transfer, 0)[0].keep


def test_without_a_block_for_long_the_window_is_asked_for_again_everywhere():
    transfer, _ = begun(now=5.0)
    feed(transfer, 1, now=20.0)
    assert transfer.tick(20.0 + STALL_S - 1).subscribe == ()
    step = transfer.tick(20.0 + STALL_S)
    assert step.subscribe == (0, 2, 3)
    assert step.request == ((0, 0), (2, 3))
    assert not step.reconnect
    assert transfer.tick(20.0 + STALL_S + 1).subscribe == ()


def test_what_does_not_help_is_no_sign_of_life():
    transfer, _ = begun()
    feed(transfer, 0)
    transfer.received(1, b"forged", STALL_S - 1)
    transfer.received(0, TEN.blocks[0], STALL_S - 1)
    transfer.received(9, TEN.blocks[9], STALL_S - 1)
    assert transfer.tick(STALL_S).request


def test_time_without_a_connection_does_not_count():
    transfer, _ = begun()
    transfer.waiting(50.0)
    assert transfer.tick(STALL_S).request == ()
    assert transfer.tick(50.0 + STALL_S).request


def test_every_second_stall_without_any_block_asks_for_another_connection():
    transfer, _ = begun()
    told = [transfer.tick(STALL_S * n).reconnect for n in range(1, 5)]
    assert told == [False, True, False, True]
    feed(transfer, 0, now=STALL_S * 4)
    assert not transfer.tick(STALL_S * 5).reconnect


def test_a_broker_that_has_lost_everything_is_noticed():
    transfer, _ = begun()
    assert transfer.tick(STALL_S).request == ((0, 2),)
    feed(transfer, 0, 1, 2, now=STALL_S)
    # What was asked of the controller has come, what was not has not.
    assert transfer.tick(2 * STALL_S).request == ((3, 9),)


def test_a_controller_that_is_away_is_asked_for_no_more_than_is_known_to_be_missing():
    transfer, _ = begun()
    assert [transfer.tick(STALL_S * n).request for n in range(1, 4)] == [((0, 2),)] * 3


def test_a_broker_that_has_lost_a_few_is_asked_for_the_rest():
    transfer, _ = begun()
    transfer.tick(STALL_S)
    feed(transfer, 0, 1, 2, 3, 4, now=STALL_S)
    # 3 and 4 came by themselves.
    assert transfer.tick(2 * STALL_S).request == ((5, 7),)


def test_requests_are_bounded():
    many = make_blocks(2 * MAX_REQUESTED, 1)
    transfer, _ = begun(blocks=many, present=range(0, 2 * MAX_REQUESTED, 2), window=2)
    transfer.tick(STALL_S)
    feed(transfer, 1, 3, blocks=many)
    assert len(transfer.tick(2 * STALL_S).request) == MAX_RANGES
    transfer, _ = begun(blocks=many, window=2)
    transfer.tick(STALL_S)
    feed(transfer, 0, 1, blocks=many)
    assert transfer.tick(2 * STALL_S).request == ((2, MAX_REQUESTED + 1),)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [((), ()), ((3,), ((3, 3),)), ((0, 1, 2, 5, 7, 8), ((0, 2), (5, 5), (7, 8)))],
)
def test_runs_become_ranges(numbers, expected):
    assert ranges(numbers) == expected


class Broker(RuleBasedStateMachine):
    """Whatever the broker does, what is kept is right, once, and asked for within the window."""

    @initialize(
        count=st.integers(1, 30),
        window=st.integers(1, 8),
        last=st.integers(1, 16),
    )
    def begin(self, count, window, last):
        self.source = make_blocks(count, 16, last=last, seed=count)
        self.window = window
        self.kept: dict[int, bytes] = {}
        self.now = 0.0
        self.restart()

    @rule()
    def restart(self):
        """The process is killed; it knows again what it kept."""
        self.transfer = Transfer(self.source.index, set(self.kept), self.window, STALL_S)
        self.asked: set[int] = set()
        self.bad = 0
        self.take(self.transfer.reconnected(self.now))

    @rule()
    def reconnect(self):
        self.asked.clear()
        self.take(self.transfer.reconnected(self.now))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), content=st.sampled_from(("right", "other", "short", "long", "empty")))
    def deliver(self, data, content):
        number = data.draw(st.sampled_from(sorted(self.asked)))
        self.send(number, self.content(number, content))

    @rule(number=st.integers(-2, 40), content=st.sampled_from(("right", "other", "empty")))
    def deliver_anything(self, number, content):
        """Duplicates, replays, and blocks that nobody asked for."""
        self.send(number, self.content(number, content))

    @rule(seconds=st.floats(0.1, 2 * STALL_S))
    def wait(self, seconds):
        self.now += seconds
        step = self.transfer.tick(self.now)
        self.take(step)
        if step.request and not self.transfer.failed:
            for first, last in step.request:
                assert not any(number in self.kept for number in range(first, last + 1))

    def content(self, number, kind):
        right = self.source.blocks[number % len(self.source.blocks)]
        return {
            "right": right,
            "other": bytes(len(right)),
            "short": right[:-1],
            "long": right + b"\0",
            "empty": b"",
        }[kind]

    def send(self, number, payload):
        over = bool(self.transfer.failed)
        step = self.transfer.received(number, payload, self.now)
        if step.keep:
            assert number not in self.kept
            assert number in self.asked
            self.kept[number] = payload
        elif number in self.asked and payload and not over:
            self.bad += 1
        self.take(step)

    def take(self, step):
        self.asked -= set(step.unsubscribe)
        self.asked |= set(step.subscribe)
        if step.failed:
            assert step.failed == self.transfer.failed

    @invariant()
    def kept_is_right(self):
        if hasattr(self, "transfer"):
            for number, block in self.kept.items():
                assert block == self.source.blocks[number]
            assert self.transfer.present == len(self.kept)
            assert self.transfer.done == (len(self.kept) == len(self.source.blocks))
            assert len(self.asked) <= self.window
            assert not self.asked & set(self.kept)
            assert bool(self.transfer.failed) == (self.bad >= MAX_BAD)
            # Something is always asked for while something is missing.
            assert self.asked or self.transfer.done or self.transfer.failed

    def teardown(self):
        """An honest broker from here on: it ends with the same file, unless it has failed."""
        if not hasattr(self, "transfer") or self.transfer.failed:
            return
        for _ in range(len(self.source.blocks) + 1):
            for number in sorted(self.asked):
                self.send(number, self.source.blocks[number])
        assert self.transfer.done
        assert b"".join(self.kept[n] for n in sorted(self.kept)) == self.source.payload


Broker.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
TestBroker = Broker.TestCase
