"""Timing of engines in turn."""

import itertools
import threading

import numpy as np
import pytest

from engines.errors import InferenceError
from engines.race import LAP_S, ROUNDS, SETTLE_S, WARM_UP_RUNS, Track, race, solo, timing
from tests.fakes.engine import FakeEngine


@pytest.fixture
def engine(monkeypatch):
    """Makes engines whose inference takes a given time on a clock of the test's own."""
    now = threading.local()
    monkeypatch.setattr("engines.race.time.perf_counter", lambda: getattr(now, "s", 0.0))

    def make(cost_ms, lanes=1):
        def infer(images):
            now.s = getattr(now, "s", 0.0) + cost_ms / 1e3
            return np.zeros((len(images), 6, 8), np.float32)

        return FakeEngine(infer, lanes=lanes)

    return make


def test_ratio_says_how_many_times_as_fast_the_second_is(engine):
    result = race(engine(20), engine(5), 1)
    assert result.ratio == pytest.approx(4)
    assert result.first.p50_ms == pytest.approx(20)
    assert result.second.p99_ms == pytest.approx(5)


def test_lanes_share_the_time(engine):
    assert solo(engine(20, lanes=4), 1).p50_ms == pytest.approx(5)


def test_slow_engine_runs_no_more_often_than_it_must(engine):
    slow = engine(500)
    solo(slow, 1)
    assert len(slow.batches) == 2 * WARM_UP_RUNS + ROUNDS


def test_all_lanes_are_busy_and_every_context_is_closed():
    meeting = threading.Barrier(2, timeout=30)

    def infer(images):
        meeting.wait()
        return np.zeros((len(images), 6, 8), np.float32)

    both = FakeEngine(infer, lanes=2)
    solo(both, 1)
    assert both.most_running == 2
    assert both.open_contexts == 0


def test_batches_are_run_as_asked(engine):
    one = engine(50)
    solo(one, 3)
    assert set(one.batches) == {3}


def test_failure_closes_what_was_opened(engine):
    def fail(images):
        raise InferenceError("broken")

    good, broken = engine(50), FakeEngine(fail)
    with pytest.raises(InferenceError, match="broken"):
        race(good, broken, 1)
    assert good.open_contexts == broken.open_contexts == 0


def test_input_is_not_blank():
    seen = []
    one = FakeEngine(lambda images: seen.append(images.std()) or np.zeros((1, 6, 8), np.float32))
    with Track(one, 1) as track:
        track.lap()
    assert min(seen) > 50


def test_percentiles_are_in_order():
    result = timing([float(n) for n in range(101)])
    assert (result.p50_ms, result.p95_ms, result.p99_ms) == (50, 95, 99)


def test_an_engine_runs_on_its_own_before_its_lap_is_timed(engine):
    """The first runs of each lap are slow, as beside threads that still spin; none is counted."""
    order = []

    def make(name):
        one = engine(20)
        plain = one.function

        def infer(images):
            order.append(name)
            return plain(images)

        one.function = infer
        return one

    race(make("a"), make("b"), 1)
    # After the warm-up, whoever's turn it is runs for SETTLE_S and LAP_S at least.
    turns = [len(list(group)) for _, group in itertools.groupby(order)]
    assert min(turns[1:-1]) >= (SETTLE_S + LAP_S) / 0.020
