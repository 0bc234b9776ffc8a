"""What the page is told of a real agent's parts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agent.config import Config
from agent.detection import ModelRef
from agent.events import KEPT, Events
from agent.http import parts
from agent.http.parts import HISTORY, REPORTS, sources_of
from agent.pipeline.stats import PipelineStats
from agent.pipeline.tap import Tap
from agent.update.machine import Failed
from agent.update.store import Store
from tests.fakes.updates import drive, way

CONFIG = Config.model_validate(
    {
        "cameras": {"dock": {"source": "0"}, "spare": {"source": "1", "enabled": False}},
        "models": {"main": {"path": "m.onnx"}},
        "mqtt": {"host": "localhost"},
    }
)


class Feed:
    status = SimpleNamespace(state="stalled", reason="no frame", since_wall_s=5.0, attempts=2)


class Pipeline:
    def __init__(self):
        ref = ModelRef("main", "n", "sha256:9f", "tensorrt", "int8", ("box",))
        model = SimpleNamespace(ref=ref)
        self.runners = {
            "main": SimpleNamespace(reason=None, busy_s=0.5, model=model, tap=Tap()),
            "empty": SimpleNamespace(reason="no file", busy_s=None, model=None, tap=Tap()),
        }
        self.stats = PipelineStats(["dock"])
        self.since = None

    def waiting(self, _slot):
        return 3

    def waiting_since(self, _slot):
        return self.since


@pytest.fixture
def pipeline():
    return Pipeline()


@pytest.fixture
def events():
    return Events(lambda _event: None)


@pytest.fixture
def sources(pipeline, events):
    def make(state=None, **more):
        return sources_of(
            device="edge-7",
            boot="b1",
            config=lambda: CONFIG,
            feeds={"dock": Feed()},
            pipeline=pipeline,
            slots={name: SimpleNamespace(state=None) for name in pipeline.runners},
            events=events,
            state=state,
            **more,
        )

    return make


def test_cameras_that_run_and_those_that_are_off_are_told(sources):
    told = sources().cameras()
    assert told["dock"] == {
        "state": "stalled", "reason": "no frame", "since": 5.0, "attempts": 2, "model": "main",
    }  # fmt: skip
    assert told["spare"] == {"state": "disabled", "reason": "", "model": "main"}


def test_a_slot_tells_its_engine_its_queue_and_why_it_is_empty(sources, pipeline, monkeypatch):
    monkeypatch.setattr(parts.time, "monotonic", lambda: 10.0)
    pipeline.since = 9.75
    told = sources().models()
    assert told["main"] == {
        "name": "n", "digest": "sha256:9f", "backend": "tensorrt", "precision": "int8",
        "names": ["box"], "reason": "", "waiting": 3, "waiting_s": 0.25, "busy_s": 0.5,
    }  # fmt: skip
    assert told["empty"]["reason"] == "no file"
    assert "name" not in told["empty"]
    pipeline.since = None
    assert sources().models()["main"]["waiting_s"] is None


def test_the_newest_events_are_told_and_no_more(sources, events):
    for number in range(KEPT + 5):
        events.tell("camera", "warning", f"{number}")
    told = sources().events()
    assert len(told) == KEPT
    assert told[-1]["what"] == f"{KEPT + 4}"
    assert set(told[-1]) == {"ts", "kind", "severity", "what"}
    assert sources().event_counts() == {"camera": KEPT + 5}


def test_the_watch_over_the_stages_and_troubles_are_handed_on(sources):
    given = sources(
        watched=lambda: {"ready": False, "stalled": ["publisher"]}, troubles=lambda: ["a mistake"]
    )
    assert given.health() == {"ready": False, "stalled": ["publisher"]}
    assert list(given.troubles()) == ["a mistake"]


def test_every_model_shows_its_frames_while_somebody_looks(sources, pipeline):
    given = sources()
    given.show(print)
    assert {r.tap.beside for r in pipeline.runners.values()} == {print}
    given.show(None)
    assert {r.tap.beside for r in pipeline.runners.values()} == {None}


@pytest.fixture
def store(tmp_path):
    kept = Store(tmp_path / "state", lambda: 5.0)
    yield kept
    kept.close()


def test_updates_that_ended_are_told_newest_first_with_a_few_reports(sources, store, tmp_path):
    for counter in range(1, HISTORY + 4):
        failed = Failed(f"bad {counter}", '{"score":0.2}')
        drive(store, "main", (*way(counter)[:7], failed))
    told = sources(tmp_path / "state").history()
    assert len(told) == HISTORY
    assert told[0]["reason"] == f"bad {HISTORY + 3}"
    assert told[0]["state"] == "REJECTED"
    assert told[0]["figures"]["shadow"] == {"score": 0.2}
    assert sum(bool(past["figures"]) for past in told) == REPORTS


def test_an_update_under_way_is_told_with_its_slot(sources, store, tmp_path):
    drive(store, "main", way(1)[:4])
    update = sources(tmp_path / "state").models()["main"]["update"]
    assert update["state"] not in ("IDLE", "COMMITTED")
    assert update["reason"] == ""


def test_the_file_of_updates_is_read_now_and_then_only(sources, store, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(parts.time, "monotonic", lambda: now[0])
    given = sources(tmp_path / "state")
    assert given.history() == []
    drive(store, "main", way(1))
    assert given.history() == []
    now[0] += parts.LOOK_EVERY_S
    assert [past["state"] for past in given.history()] == ["COMMITTED"]


def test_an_agent_without_updates_or_with_none_yet_has_no_history(sources, tmp_path):
    assert sources().history() == []
    assert sources(tmp_path / "nowhere").history() == []
