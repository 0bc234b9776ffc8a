from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.backoff import Backoff


def test_ceilings_double_up_to_the_maximum_and_start_over_after_success():
    backoff = Backoff(0.5, 3.0, uniform=lambda _low, high: high)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_delay() == 0.5


@given(st.integers(0, 5000))
def test_a_delay_is_never_above_the_maximum_however_many_attempts(attempts: int):
    backoff = Backoff(0.5, 30.0)
    backoff.attempts = attempts
    assert 0 <= backoff.next_delay() <= 30.0
