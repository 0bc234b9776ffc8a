"""What a reload does to slots and cameras, with a slot and a pipeline that note what is asked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import CameraConfig, Config, ModelConfig
from agent.errors import ConfigError, PipelineError
from agent.hotchanges import HotChanges
from agent.plans import PlanRequest
from engines.errors import BackendError

OLD = PlanRequest("main", ModelConfig(confidence=0.2), live=True, cache_dir=Path("/c"))
NEW = ModelConfig(confidence=0.6)


class Slot:
    def __init__(self, error: Exception | None = None) -> None:
        self.configured = self.request = OLD
        self.on_trial = False
        self.error = error
        self.served = OLD

    def assign(self, request):
        self.request = request

    def restore(self, request, _pipelines):
        self.assign(request)
        if self.error is not None:
            raise self.error
        self.served = request


class Builder:
    def __init__(self) -> None:
        self.holding = False
        self.wanted: list[str] = []

    @contextlib.contextmanager
    def held(self):
        self.holding = True
        yield
        self.holding = False

    def again(self, slot):
        assert not self.holding
        self.wanted.append(slot)


class Pipeline:
    def __init__(self, *used: str) -> None:
        self.runners = dict.fromkeys(used)
        self.cameras: list[str] = []
        self.error: Exception | None = None

    def add(self, name, _plan):
        if self.error is not None:
            raise self.error
        self.cameras.append(name)

    def remove(self, name):
        self.cameras.remove(name)


def house(slot: Slot, *used: str) -> SimpleNamespace:
    pipeline, builder, gone, noted = Pipeline(*used), Builder(), [], []
    hot = HotChanges(
        pipeline, {"main": slot}, builder, lambda _n, c: c, gone.append, {"log": noted.append}
    )
    return SimpleNamespace(hot=hot, pipeline=pipeline, builder=builder, gone=gone, noted=noted)


def test_a_model_with_other_settings_takes_over_and_its_engine_is_built_again():
    slot = Slot()
    at = house(slot, "main")
    at.hot.change_model("main", NEW)
    assert slot.served.config == NEW
    assert slot.configured == slot.served
    assert slot.configured.live
    assert at.builder.wanted == ["main"]


def test_a_model_that_cannot_be_loaded_leaves_what_served():
    slot = Slot(BackendError("no memory"))
    at = house(slot, "main")
    with pytest.raises(BackendError):
        at.hot.change_model("main", NEW)
    assert slot.request == slot.configured == OLD
    assert at.builder.wanted == []


def test_a_model_that_nobody_uses_is_noted_for_later():
    slot = Slot()
    at = house(slot)
    at.hot.change_model("main", NEW)
    assert slot.configured.config == slot.request.config == NEW
    assert slot.served == OLD


@pytest.mark.parametrize("state", ["committed", "trial"])
def test_what_an_update_brought_is_not_touched(state):
    slot = Slot()
    if state == "trial":
        slot.on_trial = True
    else:
        slot.request = PlanRequest("main", NEW, live=True, cache_dir=Path("/c"))
    with pytest.raises(ConfigError, match="an update serves it"):
        house(slot, "main").hot.change_model("main", ModelConfig(confidence=0.9))
    assert slot.configured == OLD


def test_cameras_come_and_go_and_one_that_fails_is_told_as_gone():
    at = house(Slot(), "main")
    camera = CameraConfig(source="rtsp://x/1")
    at.hot.add_camera("a", camera)
    at.hot.remove_camera("a")
    assert at.gone == ["a"]
    at.pipeline.error = PipelineError("no")
    with pytest.raises(PipelineError):
        at.hot.add_camera("b", camera)
    assert at.gone == ["a", "b"]


def test_a_section_is_given_to_whoever_it_concerns():
    at = house(Slot(), "main")
    config = Config.model_validate(
        {"mqtt": {"host": "x"}, "cameras": {"a": {"source": "rtsp://x/1"}}}
    )
    at.hot.change_section("log", config)
    assert at.noted == [config]
