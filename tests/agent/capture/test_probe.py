"""What is told of a source that was opened once."""

from __future__ import annotations

import itertools

import pytest

from agent.capture.probe import FRAMES, MEASURE_S, _arrivals, steady_fps

DECODED_S = 0.00275
"""A frame that has waited takes only its decoding: 363 a second."""


class Source:
    """Frames that came while nobody read come at once, all others at their time."""

    def __init__(self, fps: float, waiting: int, ends_after: int | None = None) -> None:
        self.now = 0.0
        self.reads = 0
        self._ends_after = ends_after
        self._waits = itertools.chain(
            itertools.repeat(DECODED_S, waiting), itertools.repeat(1 / fps)
        )

    def read(self) -> object | None:
        self.reads += 1
        self.now += next(self._waits)
        return None if self.reads == self._ends_after else object()

    def arrivals(self, limit_s: float = 5.0, least_s: float = MEASURE_S) -> list[float]:
        return _arrivals(self, limit_s, least_s, lambda: self.now)  # type: ignore[arg-type]


@pytest.mark.parametrize("waiting", [0, 12, 30, 250])
@pytest.mark.parametrize("fps", [5.0, 25.0, 60.0])
def test_frames_that_waited_do_not_count_for_the_rate(fps, waiting):
    assert steady_fps(Source(fps, waiting).arrivals()) == pytest.approx(fps, rel=0.02)


def test_a_slow_camera_is_measured_as_far_as_time_allows():
    source = Source(0.5, 0)
    assert steady_fps(source.arrivals()) == pytest.approx(0.5)
    assert source.now <= 5.0 + 2.0


def test_reading_ends_when_enough_has_come_and_where_frames_end():
    fast = Source(1000.0, 0)
    fast.arrivals(least_s=0.0)
    assert fast.reads == FRAMES - 1
    assert len(Source(25.0, 0, ends_after=4).arrivals()) == 4


def test_no_rate_is_told_of_a_single_frame():
    assert steady_fps([1.0]) == 0.0
