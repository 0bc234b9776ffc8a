from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.picturechoice import HELD_OUT, choose, spread


@given(st.integers(0, 3000), st.integers(8, 4096), st.integers(0, 60))
def test_both_uses_are_disjoint_rising_and_among_the_candidates(count, limit, gap):
    choice = choose(count, limit, gap)
    for part in (choice.calibration, choice.held_out):
        assert list(part) == sorted(set(part))
        assert all(0 <= i < count for i in part)
    assert not set(choice.calibration) & set(choice.held_out)
    assert len(choice.calibration) <= limit
    assert choice.all == sorted((*choice.calibration, *choice.held_out))


@given(st.integers(16, 3000), st.integers(8, 4096), st.integers(0, 60))
def test_a_third_is_held_out_and_at_least_a_quarter_of_that_calibrates(count, limit, gap):
    choice = choose(count, limit, gap)
    assert len(choice.held_out) == min(HELD_OUT, count // 3)
    assert len(choice.calibration) >= min(limit, count // 4)


@pytest.mark.parametrize(("count", "limit"), [(192, 128), (320, 256), (500, 256), (10_000, 256)])
def test_a_large_folder_fills_both(count, limit):
    choice = choose(count, limit, 0)
    assert (len(choice.calibration), len(choice.held_out)) == (limit, HELD_OUT)


@pytest.mark.parametrize(("count", "limit"), [(100, 256), (500, 256), (5000, 256), (500, 8)])
def test_neighbours_of_held_out_frames_do_not_calibrate(count, limit):
    choice = choose(count, limit, 25)
    nearest = np.abs(np.subtract.outer(choice.calibration, choice.held_out)).min()
    assert nearest >= 5


@pytest.mark.parametrize("gap", [0, 25])
def test_both_are_spread_over_the_whole(gap):
    choice = choose(5000, 256, gap)
    for part in (choice.calibration, choice.held_out):
        quarters = np.bincount(np.array(part) * 4 // 5000, minlength=4)
        assert quarters.min() >= len(part) / 4 * 0.7


def test_spread_takes_the_middles():
    assert spread(range(10), 2) == (2, 7)
    assert spread(range(3), 5) == (0, 1, 2)
    assert spread([], 5) == ()
