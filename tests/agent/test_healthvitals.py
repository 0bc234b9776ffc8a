"""What the watch looks at, gathered from a pipeline and cameras."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

from agent.capture.camera import MAX_GIVEN_UP, CameraStatus
from agent.confighealth import HealthConfig
from agent.healthvitals import AgentVitals, Parts
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.progress import Activity, Stage
from agent.stallrules import RULES, stage
from tests.fakes.feed import QueueFeed
from tests.fakes.frames import frame
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink

SOON_S = 10.0
DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "stalls.md"


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
            live=True, given_up=0, arrived=0, status=CameraStatus("online", "", 0.0, 0)
        )
        self.updates = SimpleNamespace(turn_s=None, under_way=lambda: ["main: canary"])
        self.governor = SimpleNamespace(activity=Activity(), renew=lambda: True)
        self.page = SimpleNamespace(activity=Activity(), renew=lambda: True, pictures_s=None)
        self.vitals = AgentVitals(
            HealthConfig(),
            pipeline=self.pipeline,
            feeds=lambda: {"a": self.camera},
            parts=Parts(
                publisher=Activity(),
                link=Activity(),
                spool=Activity(),
                builder=Activity(),
                governor=self.governor,
                updates=self.updates,
                settings_s=lambda: None,
                page=lambda: self.page,
            ),
            broker=lambda: "",
            queues=lambda: {"spool": {}},
            troubles=list,
            clock=lambda: self.now,
        )
        self.pipeline.load()
        self.pipeline.start()

    def end(self):
        self.pipeline.stop()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()

    def until(self, condition):
        deadline, pause = time.monotonic() + SOON_S, threading.Event()
        while not condition():
            assert time.monotonic() < deadline
            pause.wait(0.005)

    def age(self, name):
        (stage,) = [s for s in self.vitals.stages() if s.name == name]
        return stage.age_s


def test_every_stage_is_there_and_rests_while_there_is_nothing_to_do():
    ground = Ground()

    def ages():
        return {stage.name: stage.age_s for stage in ground.vitals.stages()}

    # The workers make ready first.
    ground.until(lambda: ages()["loading main"] is None)
    found = ages()
    ground.end()
    slots = {"model": "model main", "loading": "loading main"}
    assert found == dict.fromkeys(slots.get(kind, kind) for kind in RULES)


def test_without_updates_and_a_page_the_others_are_watched():
    ground = Ground()
    ground.page = None
    names = {stage.name for stage in ground.vitals.stages()}
    ground.end()
    assert "governor" in names
    assert not {"http", "http pictures"} & names


def test_a_stage_is_limited_by_its_setting_and_essential_by_its_rule():
    settings = HealthConfig(stall_timeout_s=3, slow_timeout_s=4, load_timeout_s=5)
    assert stage(settings, "loading", None, of="main") == Stage("loading main", None, 5.0)
    assert stage(settings, "builder", 1.0) == Stage("builder", 1.0, 5.0, essential=False)
    assert stage(settings, "publisher", 1.0).limit_s == 3.0
    assert stage(settings, "spool", 1.0).limit_s == 4.0


def test_the_page_of_the_documentation_says_of_each_stage_what_the_table_says():
    text = DOCUMENT.read_text("utf-8")
    rows = [r.strip("| ").split(" | ") for r in text.splitlines() if r.startswith("| `")]
    told = {row[0].strip("`"): row for row in rows}
    assert set(told) == set(RULES)
    for kind, rule in RULES.items():
        _, when, consequence = told[kind]
        assert f"`health.{rule.limit}`" in when, kind
        assert ("the process ends" in consequence) == rule.essential, kind
        assert ("begun anew" in consequence) == rule.renewable, kind


def test_a_model_that_is_being_loaded_ages_and_rests_when_it_is_there():
    ground = Ground()
    ground.until(lambda: ground.age("loading main") is None)
    with ground.pipeline.runners["main"].loading:
        assert ground.age("loading main") >= 0
        assert ground.vitals.engines()["main"]["loading_s"] is not None
    assert ground.age("loading main") is None
    ground.end()


def test_what_updates_are_at_is_told():
    ground = Ground()
    assert list(ground.vitals.updating()) == ["main: canary"]
    ground.end()


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
    assert ground.vitals.queues()["frames"] == {"main": {"waiting": 0, "oldest_s": None}}
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
    assert (look.results, look.result_age_s, look.frame_age_s) == (1, 0.0, None)
    ground.now = 7.0
    ground.camera.arrived = 2
    assert ground.vitals.cameras()[0].frame_age_s == 0.0
    ground.now = 8.0
    (look,) = ground.vitals.cameras()
    assert (look.result_age_s, look.frame_age_s) == (8.0, 1.0)
    ground.end()
