"""A model whose inference does not return: given up, loaded anew, nothing lost without a word."""

from __future__ import annotations

import threading

import pytest

from agent.pipeline.pipeline import CameraPlan, Pipeline
from tests.fakes.feed import ListFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink

SOON_S = 20.0


class Hanging:
    """Engines whose `at`th inference, counted over all of them, hangs until it is let go."""

    def __init__(self, at: int, lanes: int) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        self.models = []
        self._at, self._lanes = at, lanes
        self._count = 0
        self._lock = threading.Lock()

    def load(self):
        model = loaded(self._infer, lanes=self._lanes)
        self.models.append(model)
        return model

    def _infer(self, images):
        with self._lock:
            self._count += 1
            hangs = self._count == self._at
        if hangs:
            self.entered.set()
            assert self.released.wait(SOON_S)
        return one_box(images)


@pytest.mark.parametrize("lanes", [1, 2])
def test_every_frame_is_published_or_told_and_what_hung_closes_its_engine_later(lanes):
    hanging, sink = Hanging(5, lanes), ListSink()
    frames = [frame("a", i) for i in range(40)]
    pipeline = Pipeline(
        cameras={"a": CameraPlan(ListFeed(frames), "main")},
        models={"main": hanging.load},
        sink=sink,
        queue_frames=2,
    )
    runner = pipeline.runners["main"]
    pipeline.load()
    pipeline.start()
    assert hanging.entered.wait(SOON_S)
    assert runner.busy_s is not None
    assert not runner.give_up(1000.0)
    assert runner.give_up(0.0)
    assert pipeline.wait(SOON_S)
    assert runner.busy_s is None
    results = list(sink.results)
    # In order, and every frame that has no result is told by the next one.
    assert [r.frame_index for r in results] == sorted({r.frame_index for r in results})
    assert sum(1 + r.dropped for r in results) == len(frames)
    assert pipeline.stats.total()["a"]["drops"]["stalled"] == len(frames) - len(results)
    first, second = hanging.models
    assert not first.engine.closed
    hanging.released.set()
    with first.engine.lock:
        pass
    closed = threading.Event()
    for _ in range(400):
        if first.engine.closed:
            break
        closed.wait(0.01)
    assert first.engine.closed
    assert sink.results == results
    pipeline.close()
    assert second.engine.closed


def test_a_model_that_waits_for_frames_is_not_given_up():
    hanging = Hanging(1, 1)
    pipeline = Pipeline(
        cameras={"a": CameraPlan(ListFeed([]), "main")},
        models={"main": hanging.load},
        sink=ListSink(),
        queue_frames=2,
    )
    pipeline.load()
    assert not pipeline.runners["main"].give_up(0.0)
    pipeline.close()
