from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.detection import StageTimes
from agent.pipeline.stats import FIRST_MS, GROWTH, Histogram, PipelineStats


@given(
    st.lists(st.floats(FIRST_MS, 300_000), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.95, 0.99]),
)
def test_a_percentile_is_at_most_one_bucket_too_high_and_never_too_low(values, share):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    true = float(np.quantile(values, share, method="inverted_cdf"))
    assert true * 0.999 <= histogram.percentile(share) <= true * GROWTH * 1.001


def test_an_empty_histogram_says_zero_and_an_endless_duration_is_counted():
    histogram = Histogram()
    assert histogram.summary() == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    histogram.add(1e12)
    assert histogram.percentile(0.5) > 400_000


def test_recent_starts_over_while_total_goes_on():
    now = [0.0]
    stats = PipelineStats(["a"], clock=lambda: now[0])
    times = StageTimes(1, 1, 1, 1, 4)
    stats.result("a", times)
    stats.drop("a", "superseded", 3)
    now[0] = 2.0
    assert stats.recent()["a"]["fps"] == 0.5
    stats.result("a", times)
    now[0] = 4.0
    recent = stats.recent()["a"]
    assert recent["results"] == 1
    assert recent["drops"] == {}
    total = stats.total()["a"]
    assert total["results"] == 2
    assert total["drops"] == {"superseded": 3}
    assert total["lat_ms"]["total"]["p50"] == pytest.approx(4.0, rel=0.05)


def test_a_window_counts_its_own_while_beside_all_else():
    now = [0.0]
    stats = PipelineStats(["a", "b"], clock=lambda: now[0])
    times = StageTimes(1, 1, 1, 1, 4)
    stats.result("a", times, 5)
    now[0] = 10.0
    with stats.window() as window:
        assert window.ended_s is None
        now[0] = 11.0
        stats.result("a", times, 2)
        now[0] = 13.0
        stats.result("a", times, 1)
        stats.drop("b", "too_old", 3)
        stats.recent()
        now[0] = 14.0
    stats.result("a", times, 9)
    seen = window.cameras["a"]
    assert (window.began_s, window.ended_s) == (10.0, 14.0)
    assert (seen.results, seen.objects, seen.first_s, seen.last_s) == (2, 3, 11.0, 13.0)
    assert window.cameras["b"].drops == {"too_old": 3}
    assert stats.total()["a"]["results"] == 4


def test_histograms_are_added_up():
    one, other = Histogram(), Histogram()
    for ms in (1.0, 2.0):
        one.add(ms)
    for ms in (3.0, 100.0):
        other.add(ms)
    one.add_all(other)
    assert one.count == 4
    assert one.percentile(0.5) == pytest.approx(2.0, rel=0.06)
    assert one.percentile(1.0) == pytest.approx(100.0, rel=0.06)
