from __future__ import annotations

import pytest

from agent.update.fetchpace import MAX_REST_S, PERIOD_S, SHARE, Pace, Spent

BATCH_S = 0.003
"""Processor time of a few blocks."""


class Machine:
    """A process with one transfer, and others that take a share of a core."""

    def __init__(self, others=0.0):
        self.others = others
        self.wall = self.ours = self.theirs = 0.0
        self.pace = Pace(self.spent())

    def spent(self):
        return Spent(self.wall, self.ours, self.ours + self.theirs)

    def idle(self, seconds):
        self.wall += seconds
        self.theirs += seconds * self.others

    def blocks(self):
        """Take a few blocks and rest as told; how long."""
        self.ours += BATCH_S
        self.idle(BATCH_S)
        rest = self.pace.rest(self.spent())
        assert 0 <= rest <= MAX_REST_S
        self.idle(rest)
        return rest

    def share(self, seconds):
        """What of a core the transfer takes over a time."""
        wall, ours = self.wall, self.ours
        while self.wall < wall + seconds:
            self.blocks()
        return (self.ours - ours) / (self.wall - wall)


def test_where_nothing_else_works_a_transfer_never_rests():
    machine = Machine()
    assert machine.share(10) == pytest.approx(1.0)


@pytest.mark.parametrize("others", [0.1, 0.5, 1.8])
def test_beside_others_it_takes_its_share_and_no_more_from_the_first_block(others):
    machine = Machine(others)
    machine.idle(10)
    machine.pace.begin(machine.spent())
    assert machine.share(1) == pytest.approx(SHARE, rel=0.1)
    assert machine.share(10) == pytest.approx(SHARE, rel=0.1)


def test_others_that_begin_and_end_are_noticed_and_nothing_is_owed():
    machine = Machine()
    machine.share(5)
    machine.others = 0.5
    machine.share(2 * PERIOD_S)
    assert machine.share(2) == pytest.approx(SHARE, rel=0.1)
    machine.others = 0.0
    machine.share(3 * PERIOD_S)
    assert machine.share(2) == pytest.approx(1.0)


def test_a_slow_network_is_rest_enough():
    machine = Machine(0.5)
    machine.idle(10)
    machine.pace.begin(machine.spent())
    for _ in range(100):
        machine.idle(2 * BATCH_S / SHARE)
        assert machine.blocks() == 0


def test_clocks_of_another_thread_do_no_harm():
    pace = Pace(Spent(0.0, 5.0, 9.0))
    pace.begin(Spent(1.0, 0.0, 9.5))
    assert pace.rest(Spent(1.1, 0.1, 9.7)) == MAX_REST_S
