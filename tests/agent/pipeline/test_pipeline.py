"""Cameras, workers and a sink together, on a fake engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.pipeline.worker import MAX_FAILURES, LoadedModel
from engines.errors import BackendError, EngineError, InferenceError
from tests.fakes.feed import CrashingFeed, ListFeed, QueueFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink

SOON_S = 20.0


class Rig:
    """A pipeline with one or more models."""

    def __init__(
        self,
        cameras: dict[str, CameraPlan],
        models: dict[str, Callable[[], LoadedModel]] | None = None,
    ) -> None:
        self.sink = ListSink()
        self.pipeline = Pipeline(
            cameras=cameras,
            models=models or {"main": loaded},
            sink=self.sink,
            queue_frames=2,
        )

    def run(self) -> list[int]:
        self.pipeline.load()
        self.pipeline.start()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()
        return [r.frame_index for r in self.sink.results]


def frames(count: int, camera: str = "a") -> list:
    now = time.monotonic_ns()
    return [frame(camera, i, ns=now) for i in range(count)]


def drops(rig: Rig, camera: str = "a") -> object:
    return rig.pipeline.stats.total()[camera]["drops"]


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_file_is_analysed_whole_and_in_order_whatever_the_number_of_lanes(lanes):
    jitter = np.random.default_rng(0)
    pause = threading.Event()

    def uneven(images):
        pause.wait(float(jitter.uniform(0, 0.004)))
        return one_box(images)

    model = loaded(uneven, lanes=lanes)
    rig = Rig({"a": CameraPlan(ListFeed(frames(60)), "main")}, {"main": lambda: model})
    assert rig.run() == list(range(60))
    assert all(r.dropped == 0 for r in rig.sink.results)
    assert model.engine.most_running <= lanes
    assert model.engine.closed


def test_boxes_are_in_the_pixels_of_the_frame():
    tall = [frame("a", 0, ns=time.monotonic_ns(), size=(128, 64))]
    rig = Rig({"a": CameraPlan(ListFeed(tall), "main")})
    rig.run()
    (result,) = rig.sink.results
    np.testing.assert_allclose(result.detections.boxes, [[16, 48, 48, 80]])
    assert result.detections.class_ids.tolist() == [1]
    assert (result.width, result.height) == (64, 128)


def test_stage_times_add_up_to_the_total():
    rig = Rig({"a": CameraPlan(ListFeed(frames(3)), "main")})
    rig.run()
    for result in rig.sink.results:
        t = result.times
        assert t.total_ms == pytest.approx(t.queue_ms + t.pre_ms + t.infer_ms + t.post_ms)
        assert min(t.queue_ms, t.pre_ms, t.infer_ms, t.post_ms) >= 0


def test_a_slow_engine_gets_the_newest_live_frame_and_every_other_is_accounted_for():
    entered, release = threading.Semaphore(0), threading.Semaphore(0)

    def slow(images):
        entered.release()
        assert release.acquire(timeout=SOON_S)
        return one_box(images)

    model = loaded(slow)
    camera = QueueFeed()
    rig = Rig({"a": CameraPlan(camera, "main")}, {"main": lambda: model})
    rig.pipeline.load()
    rig.pipeline.start()
    camera.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    assert entered.acquire(timeout=SOON_S)
    for index in range(1, 20):
        camera.frames.put(frame("a", index, ns=time.monotonic_ns()))
    wait_until(camera.frames.empty)
    release.release(3)
    wait_until(lambda: rig.sink.results and rig.sink.results[-1].frame_index == 19)
    rig.pipeline.stop()
    assert rig.pipeline.wait(SOON_S)
    shown = rig.sink.results
    assert sum(1 + r.dropped for r in shown) == 20
    assert drops(rig) == {"superseded": 20 - len(shown)}
    assert len(shown) <= 4


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.005)


def test_frames_older_than_the_limit_cost_no_inference():
    old = [frame("a", 0, ns=time.monotonic_ns() - 10**9), *frames(1)]
    model = loaded()
    rig = Rig({"a": CameraPlan(ListFeed(old), "main", max_age_ms=500)}, {"main": lambda: model})
    rig.run()
    assert len(model.engine.batches) == 1
    assert [r.dropped for r in rig.sink.results] == [1]
    assert drops(rig) == {"too_old": 1}


def test_frames_that_wait_together_run_together():
    model = loaded(batch=4)
    feeds = {n: CameraPlan(ListFeed(frames(8, n)), "main") for n in "abc"}
    rig = Rig(feeds, {"main": lambda: model})
    rig.run()
    assert sum(model.engine.batches) == 24
    assert max(model.engine.batches) > 1
    for name in "abc":
        assert [r.frame_index for r in rig.sink.of(name)] == list(range(8))


def test_a_model_of_fixed_batch_runs_with_places_left_empty():
    model = loaded(batch=4, max_batch=4)
    rig = Rig({"a": CameraPlan(ListFeed(frames(5)), "main")}, {"main": lambda: model})
    assert rig.run() == [0, 1, 2, 3, 4]
    assert set(model.engine.batches) == {4}


def test_nan_output_is_counted_drops_its_frame_and_flags_the_model():
    bad = {1}

    def sometimes(images):
        output = one_box(images)
        if len(model.engine.batches) - 1 in bad:
            output[:] = np.nan
        return output

    model = loaded(sometimes)
    seen: list[str | None] = []
    rig = Rig({"a": CameraPlan(ListFeed(frames(2)), "main")}, {"main": lambda: model})
    rig.run()
    seen.append(rig.pipeline.runners["main"].reason)
    assert [r.frame_index for r in rig.sink.results] in ([0], [1])
    assert drops(rig) == {"invalid_output": 1}


def test_a_flagged_model_is_unflagged_by_a_good_output():
    calls: list[int] = []

    def bad_at_first(images):
        calls.append(1)
        output = one_box(images)
        if len(calls) == 1:
            output[0, 0, 0] = np.inf
        return output

    model = loaded(bad_at_first)
    changes: list[str | None] = []
    camera = QueueFeed()
    sink = ListSink()
    pipeline = Pipeline(
        cameras={"a": CameraPlan(camera, "main")},
        models={"main": lambda: model},
        sink=sink,
        queue_frames=1,
        changed=lambda: changes.append(pipeline.runners["main"].reason),
    )
    pipeline.load()
    pipeline.start()
    camera.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    wait_until(lambda: changes)
    assert changes[0] is not None
    camera.frames.put(frame("a", 1, ns=time.monotonic_ns()))
    sink.wait_for(1)
    pipeline.stop()
    assert pipeline.wait(SOON_S)
    assert changes[-1] is None


def test_an_engine_that_keeps_failing_is_loaded_anew_and_no_other_model_notices():
    def broken(images):
        raise InferenceError("device lost")

    made: list[LoadedModel] = []

    def load() -> LoadedModel:
        made.append(loaded(broken if not made else one_box))
        return made[-1]

    rig = Rig(
        {
            "a": CameraPlan(ListFeed(frames(MAX_FAILURES + 20)), "bad"),
            "b": CameraPlan(ListFeed(frames(30, "b")), "good"),
        },
        {"bad": load, "good": loaded},
    )
    rig.run()
    assert len(made) == 2
    assert made[0].engine.closed
    assert [r.frame_index for r in rig.sink.of("b")] == list(range(30))
    lost = drops(rig)["inference_failed"]
    assert MAX_FAILURES <= lost <= MAX_FAILURES + 1
    assert sum(1 + r.dropped for r in rig.sink.of("a")) == MAX_FAILURES + 20


def test_one_model_that_does_not_load_leaves_the_others_running():
    attempts: list[int] = []

    def missing() -> LoadedModel:
        attempts.append(1)
        raise BackendError("no such file")

    cameras = {
        "a": CameraPlan(QueueFeed(), "bad"),
        "b": CameraPlan(ListFeed(frames(5, "b")), "good"),
    }
    rig = Rig(cameras, {"bad": missing, "good": loaded})
    assert set(rig.pipeline.load()) == {"bad"}
    rig.pipeline.start()
    rig.sink.wait_for(5)
    wait_until(lambda: len(attempts) > 1)
    assert rig.pipeline.runners["bad"].reason == "no such file"
    rig.pipeline.stop()
    assert rig.pipeline.wait(SOON_S)


def test_if_no_model_loads_the_reason_is_raised():
    def missing() -> LoadedModel:
        raise BackendError("no such file")

    rig = Rig({"a": CameraPlan(QueueFeed(), "main")}, {"main": missing})
    with pytest.raises(EngineError, match="no such file"):
        rig.pipeline.load()


def test_cameras_that_are_connected_deliver_while_the_model_is_loaded():
    feed = QueueFeed()

    def slow() -> LoadedModel:
        wait_until(lambda: rig.pipeline.waiting("main") == 1)
        return loaded()

    rig = Rig({"a": CameraPlan(feed, "main")}, {"main": slow})
    feed.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    rig.pipeline.connect()
    rig.pipeline.load()
    rig.pipeline.start()
    rig.sink.wait_for(1)
    rig.pipeline.stop()
    assert rig.pipeline.wait(SOON_S)
    assert [r.dropped for r in rig.sink.results] == [0]


def test_connected_cameras_end_where_no_model_could_be_loaded():
    def missing() -> LoadedModel:
        raise BackendError("no such file")

    rig = Rig({"a": CameraPlan(ListFeed(frames(9)), "main")}, {"main": missing})
    rig.pipeline.connect()
    with pytest.raises(EngineError, match="no such file"):
        rig.pipeline.load()
    rig.pipeline.stop()
    assert rig.pipeline.wait(SOON_S)


def test_a_bug_in_a_camera_thread_is_raised_not_swallowed():
    rig = Rig({"a": CameraPlan(CrashingFeed(), "main"), "b": CameraPlan(QueueFeed(), "main")})
    rig.pipeline.load()
    rig.pipeline.start()
    with pytest.raises(LookupError, match="camera bug"):
        rig.pipeline.wait(SOON_S)


def test_stopping_analyses_what_was_delivered_and_abandoning_counts_what_was_not():
    entered, release = threading.Event(), threading.Event()

    def held(images):
        entered.set()
        assert release.wait(SOON_S)
        return one_box(images)

    model = loaded(held)
    feed = ListFeed(frames(40))
    rig = Rig({"a": CameraPlan(feed, "main")}, {"main": lambda: model})
    rig.pipeline.load()
    rig.pipeline.start()
    assert entered.wait(SOON_S)
    rig.pipeline.stop()
    assert not rig.pipeline.wait(0.05)
    rig.pipeline.abandon()
    release.set()
    assert rig.pipeline.wait(SOON_S)
    abandoned = drops(rig).get("shutdown", 0)
    assert len(rig.sink.results) + abandoned + feed.refused == 40
    assert len(rig.sink.results) <= 3
