from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.account import Arrival, account, flat


def stream(*numbers, boot="b", **changes):
    return [Arrival(boot, "gate", n, float(n), 0, n, **changes) for n in numbers]


def test_all_in_order_is_well():
    told = account(stream(0, 1, 2, 3))
    assert (told.messages, told.faults) == (4, [])


def test_what_never_came_is_a_fault():
    assert account(stream(0, 1, 3)).faults


def test_a_missing_beginning_is_a_fault():
    assert account(stream(1, 2)).faults


def test_what_a_killed_broker_had_is_no_fault_of_the_agent():
    told = account(stream(0, 1, 3), [2.0])
    assert (told.faults, told.lost_in_broker) == ([], 1)
    assert account(stream(0, 1, 3), [60.0]).faults


def test_repetitions_are_counted_and_allowed():
    told = account(stream(0, 1, 1, 2))
    assert (told.faults, told.repeated, told.messages) == ([], 1, 3)


def test_out_of_order_is_a_fault():
    assert account(stream(0, 2, 1)).faults


def test_frames_must_add_up():
    good = [*stream(0), replace(stream(1)[0], frame=4, dropped=3)]
    assert account(good).faults == []
    assert account([good[0], replace(good[1], dropped=2)]).faults


def test_runs_are_told_apart():
    assert account([*stream(0, 1), *stream(0, 1, boot="c")]).faults == []


@pytest.mark.parametrize(("growth", "fine"), [(0.0, True), (0.01, True), (0.05, False)])
def test_growth_is_seen(growth, fine):
    samples = [(float(n), 100 * (1 + growth * n / 30)) for n in range(90)]
    assert flat(samples, 0.02)[1] is fine
