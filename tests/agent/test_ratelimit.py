from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ratelimit import RateLimit


@given(st.floats(0.5, 60), st.lists(st.floats(1e-6, 0.2), min_size=2, max_size=200))
def test_the_rate_is_never_exceeded_by_more_than_one(rate_hz, steps_s):
    limit = RateLimit(rate_hz)
    now, passed, first = 0.0, 0, None
    for step in steps_s:
        now += step
        if limit.passes(now):
            first = now if first is None else first
            passed += 1
            assert passed - 1 <= (now - first) * rate_hz + 1


@pytest.mark.parametrize("jitter_s", [0.0, 0.002])
def test_the_rate_is_reached_from_any_faster_one(jitter_s):
    limit = RateLimit(20)
    times = [i / 30 + jitter_s * (-1) ** i for i in range(300)]
    assert sum(limit.passes(t) for t in times) == pytest.approx(200, abs=2)


def test_thirty_a_second_limited_to_ten_are_every_third():
    limit = RateLimit(10)
    assert [i for i in range(12) if limit.passes(i / 30)] == [0, 3, 6, 9]


def test_after_a_gap_nothing_is_caught_up():
    limit = RateLimit(10)
    assert limit.passes(0.0)
    assert limit.passes(100.0)
    assert not limit.passes(100.05)


def test_without_a_limit_all_pass():
    limit = RateLimit(None)
    assert all(limit.passes(0.0) for _ in range(5))
