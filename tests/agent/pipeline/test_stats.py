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
