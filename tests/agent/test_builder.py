"""Builds in the background: one at a time, each slot once, ended by a stop."""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import Callable

from agent.builder import Builder
from agent.modelslot import STOPPED, ModelSlot
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
