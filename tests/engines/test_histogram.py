from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.histogram import BINS, Histogram

RNG = np.random.default_rng(0)
magnitudes = hnp.arrays(
    np.float32, st.integers(1, 50), elements=st.floats(0, 2.0**60, width=32, allow_subnormal=False)
)


def filled(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(part, float(part.max()))
    return histogram


@given(st.lists(magnitudes, min_size=1, max_size=4))
def test_every_value_is_counted_once_in_whatever_order_they_come(parts):
    forward, backward = filled(*parts), filled(*reversed(parts))
    assert forward.counts.sum() == sum(p.size for p in parts)
    assert forward.top == backward.top >= max(p.max() for p in parts)
    # A value on the edge of two bins may fall to either side of it before bins are joined.
    assert abs(np.cumsum(forward.counts - backward.counts)).max() <= 1 or np.array_equal(
        forward.counts, backward.counts
    )


def test_percentiles_are_those_of_the_values_within_a_bin():
    values = np.abs(RNG.standard_normal(200_000)).astype(np.float32)
    histogram = filled(*np.split(values, 10))
    for percent in (50, 99, 99.9, 99.99):
        expected = np.percentile(values, percent)
        assert histogram.percentile(percent) == pytest.approx(
            expected, abs=1.5 * histogram.top / BINS
        )
    assert histogram.percentile(100) == histogram.amax == values.max()


def test_one_outlier_does_not_move_a_percentile_but_the_maximum():
    values = np.abs(RNG.standard_normal(200_000)).astype(np.float32)
    with_outlier = np.append(values, np.float32(100))
    assert filled(with_outlier).percentile(99.99) == pytest.approx(
        filled(values).percentile(99.99), rel=0.05
    )
    assert filled(with_outlier).amax == 100


def test_entropy_cuts_a_long_tail_and_keeps_an_even_distribution():
    even = RNG.uniform(0, 1, 500_000).astype(np.float32)
    assert filled(even).entropy() == pytest.approx(1, rel=0.02)
    tailed = np.append(np.abs(RNG.standard_normal(500_000)), 60).astype(np.float32)
    assert 2.5 < filled(tailed).entropy() < 10


def test_few_distinct_small_values_keep_their_maximum():
    assert filled(np.zeros(10, np.float32)).entropy() == 0
    assert filled(np.zeros(10, np.float32)).percentile(99) == 0
    assert Histogram().percentile(99) == 0


def test_a_range_that_grows_by_more_than_all_bins_loses_nothing():
    histogram = filled(np.full(7, 1e-15, np.float32), np.full(2, 1e15, np.float32))
    assert histogram.counts.sum() == 9
    assert histogram.counts[0] == 7
    assert histogram.percentile(100) == pytest.approx(1e15, rel=1e-3)
