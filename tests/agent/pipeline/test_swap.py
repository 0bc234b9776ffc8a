"""One model takes over from another while frames flow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pytest

from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.pipeline.worker import MAX_FAILURES, LoadedModel
from engines.errors import BackendError, EngineError, InferenceError
from tests.fakes.feed import ListFeed, QueueFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink

SOON_S = 20.0


def uneven(seed: int, longest_s: float = 0.003) -> Callable[..., np.ndarray]:
    """An engine whose inferences take differently long."""
    rng = np.random.default_rng(seed)
    pause = threading.Event()

    def infer(images):
        pause.wait(float(rng.uniform(0, longest_s)))
        return one_box(images)

    return infer


class Held:
    """An engine that infers when the test says so."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, images):
        self.entered.release()
        assert self.released.acquire(timeout=SOON_S)
        return one_box(images)

    def wait(self) -> None:
        assert self.entered.acquire(timeout=SOON_S)

    def go_on(self, times: int = 100) -> None:
        self.released.release(times)


class Rig:
    """A started pipeline of one slot."""

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        cameras: dict[str, CameraPlan],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.sink = ListSink()
        self.pipeline = Pipeline(
            cameras=cameras,
            models={"main": load},
            sink=self.sink,
            queue_frames=2,
            changed=changed,
        )
        self.runner = self.pipeline.runners["main"]

    def start(self) -> None:
        self.pipeline.load()
        self.pipeline.start()

    def swap(self, model: LoadedModel) -> Future[None]:
        return self.pipeline.swap("main", model)

    def finish(self) -> None:
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()

    def stop(self) -> None:
        self.pipeline.stop()
        self.finish()

    def drops(self, camera: str = "a") -> object:
        return self.pipeline.stats.total()[camera]["drops"]

    def served(self, camera: str = "a") -> list[str]:
        """The precisions that served this camera, each once, in order."""
        names = [r.model.precision for r in self.sink.of(camera)]
        return [b for a, b in pairwise(["", *names]) if a != b]


def frames(count: int, camera: str = "a") -> list:
    now = time.monotonic_ns()
    return [frame(camera, i, ns=now) for i in range(count)]


def one_camera(feed) -> dict[str, CameraPlan]:
    return {"a": CameraPlan(feed, "main")}


def idle() -> dict[str, CameraPlan]:
    """A live camera that gives nothing until the test says so."""
    return one_camera(QueueFeed())


@pytest.mark.parametrize("seed", range(6))
def test_every_frame_is_analysed_once_and_in_order_however_often_models_change(seed):
    rng = np.random.default_rng(seed)
    models = [
        loaded(
            uneven(int(rng.integers(1000))),
            lanes=int(rng.integers(1, 4)),
            batch=int(rng.integers(1, 4)),
            max_batch=int(rng.integers(3, 5)) if rng.random() < 0.3 else None,
            precision=f"p{number}",
        )
        for number in range(6)
    ]
    count = 150
    cameras = {n: CameraPlan(ListFeed(frames(count, n)), "main") for n in "ab"}
    rig = Rig(lambda: models[0], cameras)
    rig.start()
    done = []
    for number, model in enumerate(models[1:], 1):
        rig.sink.wait_for(number * 40)
        done.append(rig.swap(model))
        done[-1].result(SOON_S)
    rig.finish()
    for name in "ab":
        results = rig.sink.of(name)
        assert [r.frame_index for r in results] == list(range(count))
        assert all(r.dropped == 0 for r in results)
        assert rig.drops(name) == {}
    # A message of an older model never comes after one of a newer model.
    assert sorted(rig.served()) == rig.served()
    assert {r.model.precision for r in rig.sink.results} == {f"p{n}" for n in range(6)}
    for model in models:
        assert model.engine.closed
        assert model.engine.most_running <= model.engine.lanes


def test_a_live_camera_slower_than_the_engines_loses_no_frame():
    feed = QueueFeed()
    models = [loaded(uneven(n), precision=f"p{n}") for n in range(4)]
    rig = Rig(lambda: models[0], one_camera(feed))
    rig.start()
    done: list[Future[None]] = []
    for index in range(60):
        if index % 15 == 7 and len(done) < 3:
            # Handed over while the camera goes on.
            done.append(rig.swap(models[len(done) + 1]))
        feed.frames.put(frame("a", index, ns=time.monotonic_ns()))
        rig.sink.wait_for(index + 1)
    for future in done:
        future.result(SOON_S)
    rig.stop()
    assert [r.frame_index for r in rig.sink.results] == list(range(60))
    assert rig.drops() == {}
    assert rig.served() == ["p0", "p1", "p2", "p3"]


def test_workers_that_wait_for_frames_are_retired_without_one():
    old, new = loaded(lanes=2), loaded(precision="int8")
    rig = Rig(lambda: old, idle())
    rig.start()
    rig.swap(new).result(SOON_S)
    assert old.engine.closed
    assert rig.runner.model is new
    rig.stop()
    assert new.engine.closed


def test_the_frame_that_the_old_engine_holds_is_finished_by_it():
    held = Held()
    old, new = loaded(held), loaded(precision="int8")
    feed = QueueFeed()
    rig = Rig(lambda: old, one_camera(feed))
    rig.start()
    feed.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    held.wait()
    future = rig.swap(new)
    wait_until(lambda: rig.runner.model is new)
    feed.frames.put(frame("a", 1, ns=time.monotonic_ns()))
    # The new engine works while the old one still does; the results keep their order.
    wait_until(lambda: new.engine.batches)
    assert not old.engine.closed
    assert not future.done()
    held.go_on()
    future.result(SOON_S)
    rig.sink.wait_for(2)
    rig.stop()
    assert [(r.frame_index, r.model.precision) for r in rig.sink.results] == [
        (0, "fp32"),
        (1, "int8"),
    ]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.005)


def test_the_change_is_told_when_the_new_model_serves():
    seen: list[str] = []
    new = loaded(precision="int8")
    rig = Rig(loaded, idle(), lambda: seen.append(rig.runner.model.ref.precision))
    rig.start()
    rig.swap(new).result(SOON_S)
    rig.stop()
    assert seen[-1] == "int8"


def no_memory(_batch: int):
    raise InferenceError("no memory for buffers")


def test_a_model_that_cannot_begin_leaves_the_old_one_serving():
    old, new = loaded(), loaded(precision="int8")
    new.engine.create_context = no_memory
    feed = QueueFeed()
    rig = Rig(lambda: old, one_camera(feed))
    rig.start()
    with pytest.raises(EngineError, match="no memory for buffers"):
        rig.swap(new).result(SOON_S)
    assert new.engine.closed
    assert rig.runner.reason is None
    feed.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    rig.sink.wait_for(1)
    rig.stop()
    assert rig.served() == ["fp32"]
    assert rig.drops() == {}


def test_a_model_that_fails_after_taking_over_is_replaced_by_the_slots_own():
    def broken(images):
        raise InferenceError("device lost")

    made: list[LoadedModel] = []

    def load() -> LoadedModel:
        made.append(loaded())
        return made[-1]

    new = loaded(broken, precision="int8")
    feed = ListFeed(frames(40))
    gate = threading.Event()
    rig = Rig(load, one_camera(Gated(feed, gate)))
    rig.start()
    rig.swap(new).result(SOON_S)
    gate.set()
    rig.finish()
    assert len(made) == 2
    assert all(model.engine.closed for model in (*made, new))
    lost = rig.drops()["inference_failed"]
    assert MAX_FAILURES <= lost <= MAX_FAILURES + 1
    assert sum(1 + r.dropped for r in rig.sink.results) == 40


class Gated:
    """A camera that waits for the test before its first frame."""

    def __init__(self, feed: ListFeed, gate: threading.Event) -> None:
        self.live = feed.live
        self._feed, self._gate = feed, gate

    def run(self, deliver, stop: threading.Event) -> None:
        assert self._gate.wait(SOON_S)
        self._feed.run(deliver, stop)


def test_a_model_handed_over_while_the_old_one_is_broken_serves_at_once():
    def broken(images):
        raise InferenceError("device lost")

    loads: list[LoadedModel] = []

    def load() -> LoadedModel:
        if loads:
            raise BackendError("gone")
        loads.append(loaded(broken))
        return loads[0]

    new = loaded(precision="int8")
    feed = QueueFeed()
    rig = Rig(load, one_camera(feed))
    rig.start()
    index = 0
    while not loads[0].engine.closed:
        feed.frames.put(frame("a", index, ns=time.monotonic_ns()))
        wait_until(feed.frames.empty)
        index += 1
    rig.swap(new).result(SOON_S)
    assert rig.runner.reason is None
    feed.frames.put(frame("a", index, ns=time.monotonic_ns()))
    rig.sink.wait_for(1)
    rig.stop()
    assert rig.served() == ["int8"]


def test_of_two_models_handed_over_while_a_swap_runs_the_later_one_serves():
    held = Held()
    models = [loaded(held), *(loaded(precision=f"p{n}") for n in (1, 2, 3))]
    feed = QueueFeed()
    rig = Rig(lambda: models[0], one_camera(feed))
    rig.start()
    feed.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    held.wait()
    first = rig.swap(models[1])
    wait_until(lambda: rig.runner.model is models[1])
    second, third = rig.swap(models[2]), rig.swap(models[3])
    with pytest.raises(EngineError, match="overtook"):
        second.result(SOON_S)
    held.go_on()
    first.result(SOON_S)
    third.result(SOON_S)
    rig.stop()
    assert models[2].engine.batches == []
    assert all(model.engine.closed for model in models)


def test_a_swap_before_the_start_is_made_at_the_start():
    old, new = loaded(), loaded(precision="int8")
    rig = Rig(lambda: old, one_camera(ListFeed(frames(20))))
    rig.pipeline.load()
    future = rig.swap(new)
    rig.pipeline.start()
    rig.finish()
    # The file may have ended first; whatever happened, nothing is lost or left open.
    assert future.done()
    assert [r.frame_index for r in rig.sink.results] == list(range(20))
    assert old.engine.closed
    assert new.engine.closed


def test_a_swap_after_the_end_is_refused_and_closes_the_model():
    rig = Rig(loaded, one_camera(ListFeed(frames(1))))
    rig.start()
    rig.finish()
    late = loaded()
    with pytest.raises(EngineError, match="stopping"):
        rig.swap(late).result(SOON_S)
    assert late.engine.closed


@pytest.mark.parametrize("seed", range(8))
def test_a_swap_during_the_stop_closes_everything_and_loses_nothing(seed):
    old, new = loaded(uneven(seed)), loaded(uneven(seed + 1), precision="int8")
    feed = ListFeed(frames(200))
    rig = Rig(lambda: old, one_camera(feed))
    rig.start()
    rig.sink.wait_for(5 + seed)
    stopper = threading.Thread(target=rig.pipeline.stop)
    stopper.start()
    future = rig.swap(new)
    stopper.join(SOON_S)
    rig.finish()
    assert future.done()
    assert old.engine.closed
    assert new.engine.closed
    results = rig.sink.results
    assert [r.frame_index for r in results] == list(range(len(results)))
    assert len(results) + feed.refused == 200


def test_a_replaced_engine_is_closed_before_the_new_one_is_loaded_and_no_file_frame_is_lost():
    old, new = loaded(uneven(0), lanes=2), loaded(precision="int8")
    rig = Rig(lambda: old, one_camera(ListFeed(frames(80))))
    rig.start()
    rig.sink.wait_for(10)
    closed_before: list[bool] = []

    def load() -> LoadedModel:
        closed_before.append(old.engine.closed)
        return new

    rig.pipeline.replace("main", load).result(SOON_S)
    rig.finish()
    assert closed_before == [True]
    assert [r.frame_index for r in rig.sink.results] == list(range(80))
    assert rig.served() == ["fp32", "int8"]
    assert rig.drops() == {}


def test_a_replacement_that_does_not_load_is_told_and_the_slots_own_way_comes_next():
    made: list[LoadedModel] = []

    def load() -> LoadedModel:
        made.append(loaded(uneven(len(made))))
        return made[-1]

    def refused() -> LoadedModel:
        raise BackendError("no memory")

    rig = Rig(load, one_camera(ListFeed(frames(60))))
    rig.start()
    rig.sink.wait_for(5)
    with pytest.raises(EngineError, match="no memory"):
        rig.pipeline.replace("main", refused).result(SOON_S)
    rig.finish()
    assert len(made) == 2
    assert [r.frame_index for r in rig.sink.results] == list(range(60))
    assert rig.runner.reason is None


def test_a_replacement_during_the_stop_is_refused_without_loading():
    held = Held()
    feed = QueueFeed()
    rig = Rig(lambda: loaded(held), one_camera(feed))
    rig.start()
    feed.frames.put(frame("a", 0, ns=time.monotonic_ns()))
    held.wait()
    calls: list[int] = []

    def load() -> LoadedModel:
        calls.append(1)
        return loaded()

    future = rig.pipeline.replace("main", load)
    rig.pipeline.stop()
    held.go_on()
    with pytest.raises(EngineError, match="stopping"):
        future.result(SOON_S)
    rig.finish()
    assert calls == []
