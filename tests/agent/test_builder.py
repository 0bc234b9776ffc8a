"""Builds in the background: one at a time, each slot once, ended by a stop."""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from agent import builder
from agent.builder import Builder
from agent.modelslot import POSTPONED, STOPPED, ModelSlot
from engines.errors import BuildError
from tests.fakes.slots import REPORT, FakeEngines, FakePipelines, plan, request

SOON_S = 20.0


class Rig:
    """Slots, and a builder whose child runs `body`."""

    def __init__(self, body: str, *names: str) -> None:
        script = textwrap.dedent(body)
        self.changed = threading.Condition()
        self.engines = {name: FakeEngines() for name in names}
        self.pipelines = FakePipelines()
        self.slots = {name: ModelSlot(request(name), self.open, self.notify) for name in names}
        self.builder = Builder(self.slots, self.pipelines, (sys.executable, "-c", script))

    def open(self, of) -> FakeEngines:
        return self.engines[of.slot]

    def notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def state(self, name: str) -> str:
        state = self.slots[name].state
        return "" if state is None else state.state

    def step(self, name: str) -> str:
        state = self.slots[name].state
        return "" if state is None else state.step

    def wait(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SOON_S)


HANGS = """
import json, sys, time
slot = json.loads(sys.stdin.readline())["slot"]
print(json.dumps({"progress": {"step": "building " + slot, "done": 0, "total": 0}}), flush=True)
time.sleep(600)
"""

FAILS = """
import json, sys
slot = json.loads(sys.stdin.readline())["slot"]
print(json.dumps({"error": "no engine for " + slot}), flush=True)
"""

BUILDS = f"""
import json, sys
sys.stdin.readline()
print(json.dumps({{"report": {{"plan": "ab", "cached": False, "value": {REPORT!r}}}}}), flush=True)
"""


def test_slots_are_built_one_after_the_other_and_each_once():
    rig = Rig(FAILS, "a", "b")
    rig.builder.start()
    for name in ("a", "b", "a"):
        rig.builder.want(name)
    rig.wait(lambda: rig.state("a") == rig.state("b") == "failed")
    assert rig.slots["a"].state.reason == "no engine for a"
    ended = rig.slots["a"].state.ended
    assert ended <= rig.slots["b"].state.started
    # No endless loop of builds that fail.
    rig.builder.want("a")
    assert rig.builder.close(SOON_S)
    assert rig.slots["a"].state.ended == ended


def test_what_the_child_built_takes_over():
    rig = Rig(BUILDS, "a")

    engines = rig.engines["a"]
    found = iter([None, plan()])
    engines.find = lambda: next(found)
    rig.builder.want("a")
    rig.builder.start()
    rig.wait(lambda: rig.state("a") == "ready")
    assert rig.pipelines.serving["a"].ref.precision == "int8"
    assert rig.builder.close(SOON_S)


def test_a_stop_ends_the_build_and_begins_no_other():
    rig = Rig(HANGS, "a", "b")
    rig.builder.start()
    rig.builder.want("a")
    rig.builder.want("b")
    rig.wait(lambda: rig.step("a") == "building a")
    rig.builder.cancel()
    assert rig.builder.close(SOON_S)
    assert rig.slots["a"].state.reason == STOPPED
    assert rig.slots["b"].state is None


def test_a_stop_without_a_build_is_quick():
    rig = Rig(HANGS, "a")
    rig.builder.start()
    assert rig.builder.close(SOON_S)
    rig.builder.want("a")
    assert rig.slots["a"].state is None


def test_a_builder_that_never_started_can_be_closed():
    rig = Rig(HANGS, "a")
    rig.builder.want("a")
    assert rig.builder.close(SOON_S)


@pytest.fixture
def breathless(monkeypatch):
    monkeypatch.setattr(builder, "BREATH_S", 0.0)


def test_while_it_is_held_nothing_is_begun_and_afterwards_it_goes_on(breathless):
    rig = Rig(FAILS, "a")
    rig.builder.start()
    with rig.builder.held():
        rig.builder.want("a")
        with rig.builder.held():
            pass
        # Both holders must have let go.
        assert rig.slots["a"].state is None
    rig.wait(lambda: rig.state("a") == "failed")
    assert rig.builder.close(SOON_S)


ONCE = """
import json, sys, time
from pathlib import Path
slot = json.loads(sys.stdin.readline())["slot"]
mark = Path({mark!r})
if mark.exists():
    print(json.dumps({{"error": "second build of " + slot}}), flush=True)
else:
    mark.touch()
    print(json.dumps({{"progress": {{"step": "first", "done": 0, "total": 0}}}}), flush=True)
    time.sleep(600)
"""


def test_a_build_that_runs_is_broken_off_by_a_holder_and_begun_again_later(tmp_path, breathless):
    rig = Rig(ONCE.format(mark=str(tmp_path / "mark")), "a")
    rig.builder.start()
    rig.builder.want("a")
    rig.wait(lambda: rig.step("a") == "first")
    with rig.builder.held():
        assert rig.slots["a"].state.reason == POSTPONED
        assert rig.state("a") == "none"
    rig.wait(lambda: rig.state("a") == "failed")
    assert rig.slots["a"].state.reason == "second build of a"
    assert rig.builder.close(SOON_S)


def test_after_it_was_held_it_rests(monkeypatch):
    monkeypatch.setattr(builder, "BREATH_S", 3600.0)
    rig = Rig(FAILS, "a")
    rig.builder.start()
    with rig.builder.held():
        rig.builder.want("a")
    assert rig.builder.close(SOON_S)
    assert rig.slots["a"].state is None


def test_a_slot_with_another_model_is_improved_again():
    rig = Rig(FAILS, "a")
    rig.builder.start()
    rig.builder.want("a")
    rig.wait(lambda: rig.state("a") == "failed")
    before = rig.slots["a"].state
    rig.builder.again("a")
    rig.wait(lambda: rig.slots["a"].state not in (before, None) and rig.state("a") == "failed")
    assert rig.builder.close(SOON_S)


def test_a_holder_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(builder, "HOLD_S", 0.01)
    rig = Rig(FAILS, "a")
    rig.builder._busy = True
    with pytest.raises(BuildError, match="has not ended"), rig.builder.held():
        pass
    assert rig.builder.close(SOON_S)


def test_a_build_that_runs_has_its_own_deadline_before_the_builder_counts_as_stalled():
    rig = Rig(HANGS, "main")
    assert rig.builder.activity.age_s is None
    rig.builder.want("main")
    rig.builder.start()
    rig.wait(lambda: rig.step("main") == "building main")
    assert rig.builder.activity.age_s == 0.0
    rig.builder.close(SOON_S)
    assert rig.builder.activity.age_s is None


def test_a_builder_that_hangs_beside_a_build_ages(monkeypatch):
    entered, released = threading.Event(), threading.Event()
    rig = Rig(HANGS, "main")

    def hang():
        entered.set()
        released.wait(SOON_S)
        return False

    monkeypatch.setattr(rig.engines["main"], "wanted", hang)
    rig.builder.want("main")
    rig.builder.start()
    assert entered.wait(SOON_S)
    first = rig.builder.activity.age_s
    assert first is not None
    assert rig.builder.activity.age_s > first
    released.set()
    rig.builder.close(SOON_S)
