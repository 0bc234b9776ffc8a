"""Cameras that come and go while others run."""

from __future__ import annotations

import threading
import time

import pytest

from agent.errors import PipelineError
from agent.pipeline import pipeline as module
from agent.pipeline.pipeline import CameraPlan, Pipeline
from tests.fakes.feed import ListFeed, QueueFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded
from tests.fakes.sink import ListSink

SOON_S = 20.0


class House:
    """A pipeline that runs, with camera `a`, and what it gave."""

    def __init__(self, *names: str, live: bool = False) -> None:
        self.sink = ListSink()
        self.feeds = {name: QueueFeed(live=live) for name in names}
        self.pipeline = Pipeline(
            cameras={name: CameraPlan(feed, "main") for name, feed in self.feeds.items()},
            models={"main": loaded, "other": loaded},
            sink=self.sink,
            queue_frames=4,
        )
        self.pipeline.load()
        self.pipeline.start()

    def add(self, name: str, slot: str = "main", *, live: bool = False) -> QueueFeed:
        self.feeds[name] = QueueFeed(live=live)
        self.pipeline.add(name, CameraPlan(self.feeds[name], slot))
        return self.feeds[name]

    def give(self, name: str, *indices: int) -> None:
        for index in indices:
            self.feeds[name].frames.put(frame(name, index, ns=time.monotonic_ns()))

    def got(self, name: str) -> list[int]:
        return [r.frame_index for r in tuple(self.sink.results) if r.camera == name]

    def await_(self, name: str, indices: list[int]) -> None:
        deadline, pause = time.monotonic() + SOON_S, threading.Event()
        while self.got(name) != indices and time.monotonic() < deadline:
            pause.wait(0.005)
        assert self.got(name) == indices

    def end(self) -> None:
        self.pipeline.stop()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()


@pytest.fixture
def house():
    house = House("a")
    yield house
    house.end()


def test_a_camera_is_added_while_another_runs(house):
    house.give("a", 0)
    house.await_("a", [0])
    house.add("b")
    house.give("b", 0, 1)
    house.give("a", 1)
    house.await_("b", [0, 1])
    house.await_("a", [0, 1])
    assert house.pipeline.stats.total()["b"]["results"] == 2
    assert set(house.pipeline.cameras_of("main")) == {"a", "b"}


def test_a_camera_that_is_removed_touches_no_other(house):
    house.add("b")
    house.give("b", 0)
    house.await_("b", [0])
    for index in range(20):
        house.give("a", index)
    house.pipeline.remove("b")
    house.await_("a", list(range(20)))
    assert all(r.dropped == 0 for r in house.sink.results)
    assert "b" not in house.pipeline.stats.total()
    assert set(house.pipeline.cameras_of("main")) == {"a"}


def test_the_last_camera_goes_and_comes_back_and_its_frames_flow_on(house):
    house.give("a", 0)
    house.await_("a", [0])
    house.pipeline.remove("a")
    assert not house.pipeline.wait(0)
    house.add("a")
    house.give("a", 7, 8)
    house.await_("a", [0, 7, 8])


def test_a_camera_moves_to_a_model_that_nobody_used(house):
    house.pipeline.remove("a")
    house.add("a", "other")
    house.give("a", 5)
    house.await_("a", [5])
    assert house.pipeline.model("other") is not None


def test_a_lossless_camera_becomes_live(house):
    house.pipeline.remove("a")
    house.add("a", live=True)
    assert house.pipeline.cameras_of("main") == {"a": True}


def test_a_file_that_is_added_is_analysed_whole_and_others_go_on(house):
    clip = [frame("clip", i, ns=time.monotonic_ns()) for i in range(30)]
    house.pipeline.add("clip", CameraPlan(ListFeed(clip), "main"))
    house.await_("clip", list(range(30)))
    house.give("a", 0)
    house.await_("a", [0])


def test_what_cannot_be_is_refused_in_words(house):
    with pytest.raises(PipelineError, match="runs already"):
        house.add("a")
    with pytest.raises(PipelineError, match="none that runs"):
        house.pipeline.remove("z")


def test_a_camera_that_hangs_is_told_and_keeps_its_name():
    hangs = threading.Event()

    class Hanging:
        live = True

        def run(self, _deliver, _stop):
            hangs.wait(SOON_S)

    house = House("a")
    try:
        house.pipeline.add("h", CameraPlan(Hanging(), "main"))
        with pytest.raises(PipelineError, match="does not end within"):
            house.pipeline.remove("h", timeout_s=0.05)
        with pytest.raises(PipelineError, match="runs already"):
            house.add("h")
        hangs.set()
        house.pipeline.remove("h")
    finally:
        hangs.set()
        house.end()


def test_names_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    house = House("a")
    try:
        house.add("b")
        with pytest.raises(PipelineError, match="2 names"):
            house.add("c")
        house.pipeline.remove("b")
        house.add("b")
    finally:
        house.end()


def test_nothing_is_added_once_all_files_of_a_model_have_ended():
    house = House("a")
    house.pipeline.add("clip", CameraPlan(ListFeed([]), "other"))
    runner = house.pipeline.runners["other"]
    deadline, pause = time.monotonic() + SOON_S, threading.Event()
    while not runner._stopped and time.monotonic() < deadline:
        pause.wait(0.005)
    with pytest.raises(PipelineError, match="have ended"):
        house.add("late", "other")
    house.end()


def test_nothing_is_added_to_a_pipeline_that_stops():
    house = House("a")
    house.end()
    with pytest.raises(PipelineError, match="stopping"):
        house.add("b")
