"""One onlooker sees some frames, the newest, and holds up nobody."""

from __future__ import annotations

import threading

import pytest

from agent.pipeline.tap import Tap
from tests.fakes.frames import frame, result

SOON_S = 20.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tap(clock):
    return Tap(clock)


def offer(tap: Tap, index: int) -> None:
    shown = frame("a", index)
    tap.offer(shown, result(shown))


def taken(tap: Tap) -> int | None:
    found = tap.take(0)
    return None if found is None else found[0].index


def test_nothing_is_kept_while_nobody_looks(tap):
    offer(tap, 0)
    tap.open(0)
    assert taken(tap) is None


def test_the_newest_wins_and_is_given_once(tap, clock):
    tap.open(1.0)
    for index in range(3):
        offer(tap, index)
        clock.now += 1.0
    assert taken(tap) == 2
    assert taken(tap) is None


def test_frames_are_shown_no_more_often_than_asked(tap, clock):
    tap.open(1.0)
    seen = []
    for index in range(40):
        offer(tap, index)
        seen.append(taken(tap))
        clock.now += 0.25
    assert [index for index in seen if index is not None] == list(range(0, 40, 4))


def test_result_and_frame_belong_together(tap):
    tap.open(0)
    offer(tap, 7)
    shown, found = tap.take(0)
    assert shown.index == found.frame_index == 7


def test_whoever_waits_is_woken_by_a_frame_and_by_the_end(tap):
    tap.open(0)
    found: list = []
    waiting = threading.Thread(target=lambda: found.extend([tap.take(SOON_S), tap.take(SOON_S)]))
    waiting.start()
    offer(tap, 1)
    tap.close()
    waiting.join(SOON_S)
    assert not waiting.is_alive()
    assert found[-1] is None


def test_what_waits_is_let_go_at_the_end_and_the_next_onlooker_does_not_get_it(tap):
    tap.open(0)
    offer(tap, 1)
    tap.close()
    assert taken(tap) is None
    offer(tap, 2)
    tap.open(0)
    assert taken(tap) is None
    offer(tap, 3)
    assert taken(tap) == 3
