from __future__ import annotations

import contextlib

import pytest

from agent.governorengine import LightEngines
from agent.modelslot import ModelSlot
from engines.errors import BackendError
from tests.fakes.slots import FakeEngines, FakePipelines, plan, request


class Holding:
    """As `agent.builder.Builder`."""

    def __init__(self):
        self.holds = 0

    @contextlib.contextmanager
    def held(self):
        self.holds += 1
        yield


class House:
    """One slot that serves in FP32, with the engines that were built, by precision asked for."""

    def __init__(self, *built):
        self.engines = {p: FakeEngines(plan(p)) for p in built}
        self.pipelines = FakePipelines()
        self.builder = Holding()
        self.slot = ModelSlot(
            request(), self.open, lambda: None, available=lambda: 2**40, clock=lambda: 0.0
        )
        self.pipelines.serving["main"] = self.slot.load()
        self.light = LightEngines({"main": self.slot}, self.pipelines, self.builder, self.open)

    def open(self, request):
        return self.engines.get(request.config.precision) or FakeEngines()

    @property
    def serves(self):
        return self.pipelines.serving["main"].ref.precision


def test_the_lightest_engine_that_was_built_serves_and_the_own_one_comes_back():
    house = House("fp16", "int8")
    assert house.light.engage() == ("main",)
    assert house.serves == "int8"
    house.light.release()
    assert house.serves == "fp32"
    assert house.light.serving == ()
    assert not house.slot.on_trial
    assert house.builder.holds == 2


def test_fp16_serves_where_there_is_no_int8():
    house = House("fp16")
    assert house.light.engage() == ("main",)
    assert house.serves == "fp16"


def test_nothing_is_built_for_it():
    house = House()
    assert house.light.engage() == ()
    assert house.serves == "fp32"
    assert house.builder.holds == 0


def test_what_serves_already_as_light_as_can_be_is_left():
    house = House("int8")
    house.light.engage()
    again = LightEngines({"main": house.slot}, house.pipelines, house.builder, house.open)
    assert again.engage() == ()


def test_a_slot_whose_update_is_being_proven_is_left_alone():
    house = House("int8")
    house.engines["auto"] = FakeEngines(plan("fp32"))
    house.slot.try_out(request(), house.pipelines)
    assert house.light.engage() == ()


def test_what_an_update_has_put_there_since_stays():
    house = House("int8")
    house.light.engage()
    house.engines["auto"] = FakeEngines(plan("fp16"))
    house.slot.try_out(request(), house.pipelines)
    house.light.release()
    assert house.serves == "fp16"
    assert house.slot.on_trial


def test_an_engine_that_cannot_be_loaded_changes_nothing():
    house = House("int8")
    house.engines["int8"].refuses = BackendError("no")
    assert house.light.engage() == ()
    assert house.serves == "fp32"


def test_an_engine_that_failed_for_good_is_not_brought_back():
    house = House("int8")
    house.light.engage()
    house.pipelines.serving["main"] = house.slot.load()
    house.light.release()
    assert house.serves == "fp32"


@pytest.mark.parametrize("times", [1, 3])
def test_it_may_be_asked_again(times):
    house = House("int8")
    for _ in range(times):
        house.light.engage()
    assert house.light.serving == ("main",)
