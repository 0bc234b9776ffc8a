"""What the watch looks at, gathered from a pipeline and cameras."""

import threading
from types import SimpleNamespace

from agent.capture.camera import MAX_GIVEN_UP, CameraStatus
from agent.healthvitals import AgentVitals
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.progress import Activity
from tests.fakes.feed import QueueFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink

SOON_S = 10.0


class Ground:
    def __init__(self, infer=one_box):
        self.now = 0.0
        self.sink, self.feed = ListSink(), QueueFeed()
        self.pipeline = Pipeline(
            cameras={"a": CameraPlan(self.feed, "main")},
            models={"main": lambda: loaded(infer)},
            sink=self.sink,
            queue_frames=2,
        )
        self.camera = SimpleNamespace(
            live=True, given_up=0, status=CameraStatus("online", "", 0.0, 0)
        )
        self.updates = SimpleNamespace(turn_s=None)
        self.vitals = AgentVitals(
            pipeline=self.pipeline,
            feeds=lambda: {"a": self.camera},
            publisher=Activity(),
            link=Activity(),
            updates=self.updates,
            broker=lambda: "",
            queues=lambda: {"spool": {}},
            troubles=list,
            limit_s=10.0,
            clock=lambda: self.now,
        )
        self.pipeline.load()
        self.pipeline.start()

    def end(self):
        self.pipeline.stop()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()

    def age(self, name):
        (stage,) = [s for s in self.vitals.stages() if s.name == name]
        return stage.age_s


def test_every_stage_is_there_and_rests_while_there_is_nothing_to_do():
    ground = Ground()
    ages = {stage.name: stage.age_s for stage in ground.vitals.stages()}
    ground.end()
    names = {"model main", "publisher", "link", "event loop", "cameras", "updater"}
    assert ages == dict.fromkeys(names)


def test_a_hanging_inference_ages_its_model_and_is_shown_with_the_engine():
    entered, released = threading.Event(), threading.Event()

    def hang(images):
        entered.set()
        released.wait(SOON_S)
        return one_box(images)

    ground = Ground(hang)
    ground.feed.frames.put(frame("a"))
    assert entered.wait(SOON_S)
    assert ground.age("model main") > 0
    assert ground.vitals.engines()["main"]["backend"] == "fake"
    assert ground.vitals.queues()["frames"] == {"main": 0}
    released.set()
    ground.sink.wait_for(1)
    ground.end()


def test_cameras_are_stuck_only_while_none_can_be_opened_anew():
    ground = Ground()
    ground.camera.given_up = MAX_GIVEN_UP
    assert ground.age("cameras") == 0
    ground.now = 61.0
    assert ground.age("cameras") == 61.0
    ground.camera.given_up = MAX_GIVEN_UP - 1
    assert ground.age("cameras") is None
    ground.end()


def test_the_age_of_a_result_counts_from_when_it_was_seen():
    ground = Ground()
    assert ground.vitals.cameras()[0].result_age_s is None
    ground.feed.frames.put(frame("a"))
    ground.sink.wait_for(1)
    (look,) = ground.vitals.cameras()
    assert (look.results, look.result_age_s) == (1, 0.0)
    ground.now = 7.0
    assert ground.vitals.cameras()[0].result_age_s == 7.0
    ground.end()
