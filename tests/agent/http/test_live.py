"""Pictures that are drawn once for all who look, and only while they do."""

from __future__ import annotations

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from agent.detection import Detections
from agent.http import live as live_module
from agent.http.live import MAX_WIDTH, Live, encode
from tests.agent.http.conftest import PATIENCE_S, until
from tests.fakes.frames import frame, result


class Shown:
    """Stands for the pipeline: hands frames to whoever asked for them."""

    def __init__(self):
        self.show = None

    def __call__(self, show):
        self.show = show

    def give(self, name="dock", number=0):
        shown = frame(name, number, size=(48, 64))
        self.show(shown, result(shown))


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def live(shown):
    made = Live(shown, fps=1000.0)
    yield made
    made.close()


def newest(live, shown, view, number=0):
    """The next picture, whatever has to be given for it."""
    found = None
    while found is None:
        shown.give()
        found = live.newer(view, number, 0.05)
    return found


def test_nothing_is_drawn_while_nobody_looks(live, shown):
    assert shown.show is None
    assert live.views == 0
    live.offer(frame(), result(frame()))
    assert live.drawn == 0


def test_one_thread_draws_for_all_who_look_at_a_camera(live, shown):
    before = threading.active_count()
    with live.watch("dock") as one, live.watch("dock") as two:
        assert one is two
        assert threading.active_count() == before + 1
        number, jpeg = newest(live, shown, one)
        assert live.newer(two, number - 1, PATIENCE_S)[1][:2] == jpeg[:2] == b"\xff\xd8"


def test_a_camera_that_nobody_asks_for_is_drawn_no_more(shown, monkeypatch):
    monkeypatch.setattr(live_module, "LINGER_S", 0.03)
    live = Live(shown, fps=1000.0)
    with live.watch("dock") as view:
        newest(live, shown, view)
    until(lambda: live.views == 0 and shown.show is None)
    assert view.closed
    with live.watch("dock") as again:
        assert again is not view


def test_pictures_of_one_camera_go_to_those_who_look_at_it(live, shown):
    with live.watch("gate") as gate:
        for number in range(5):
            shown.give("dock", number)
        assert live.newer(gate, 0, 0.05) is None


def test_who_waits_for_a_picture_is_released_by_the_end(live):
    with live.watch("dock") as view:
        got = []
        waiter = threading.Thread(target=lambda: got.append(live.newer(view, 0, PATIENCE_S)))
        waiter.start()
        live.close()
        waiter.join(PATIENCE_S)
    assert got == [None]
    with live.watch("dock") as late, live.stream() as allowed:
        assert late is None
        assert not allowed


def test_cameras_and_streams_are_limited_and_come_free_again(live, monkeypatch):
    monkeypatch.setattr(live_module, "MAX_VIEWS", 1)
    monkeypatch.setattr(live_module, "MAX_STREAMS", 1)
    with live.watch("dock") as one, live.watch("gate") as other:
        assert one is not None
        assert other is None
    with live.stream() as first, live.stream() as second:
        assert (first, second) == (True, False)
    with live.stream() as third:
        assert third
    assert live.streams == 0


def test_a_wide_picture_is_made_smaller_with_what_was_found_in_its_place():
    wide = frame(size=(1080, 1920))
    box = np.array([[960, 540, 1440, 810]], np.float32)
    found = Detections(box, np.array([0.9], np.float32), np.array([0], np.int32))
    jpeg = encode(replace(wide), result(wide, found))
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (540, MAX_WIDTH, 3)
    bright = np.argwhere(picture.max(axis=2) > 120)
    assert abs(bright[:, 1].min() - 480) <= 3
    assert abs(bright[:, 1].max() - 720) <= 3
    assert abs(bright[:, 0].max() - 405) <= 3
