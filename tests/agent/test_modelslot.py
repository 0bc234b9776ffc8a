"""How a better engine comes to serve a slot, and what becomes of one that does not."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future
from pathlib import Path

import pytest

from agent.modelslot import POSTPONED, PROBATION_S, STOPPED, ModelSlot, PostponedError
from agent.plans import PlanRequest
from agent.slotswitch import BESIDE_BYTES, BESIDE_FACTOR
from agent.wire.buildstate import BuildState
from engines.backend import Progress
from engines.errors import BackendError, BuildError, EngineError, ModelFileError, PlanError
from tests.fakes.slots import FakeBuild, FakeEngines, FakePipelines, plan, request


class Rig:
    """A slot that has loaded what is ready."""

    def __init__(self, engines: FakeEngines | None = None, made=None) -> None:
        self.engines = engines or FakeEngines()
        self.pipelines = FakePipelines()
        self.build = FakeBuild(self.engines, made)
        self.told: list[BuildState | None] = []
        self.now_s = 100.0
        self.free = 2**40
        self.others: dict[str, FakeEngines] = {}
        self.slot = ModelSlot(
            request(build_timeout_s=30),
            self.open,
            lambda: self.told.append(self.slot.state),
            available=lambda: self.free,
            clock=lambda: self.now_s,
            wall=lambda: 1000.0 + self.now_s,
        )
        self.first = self.slot.load()
        self.pipelines.serving["main"] = self.first

    def open(self, of) -> FakeEngines:
        return self.others.get(of.config.path.name, self.engines)

    def other(self, name: str, precision: str = "bf16") -> PlanRequest:
        """A request for another model, whose engine was built."""
        wanted = request()
        config = wanted.config.model_copy(update={"path": Path(name)})
        Path(name).write_bytes(b"model")
        self.others[name] = FakeEngines(plan(precision), digest=f"sha256:{name}")
        return dataclasses.replace(wanted, config=config)

    def improve(self) -> BuildState:
        self.slot.improve(self.pipelines, self.build)
        assert self.slot.state is not None
        assert self.told[-1] == self.slot.state
        return self.slot.state

    @property
    def serving(self) -> str:
        return self.pipelines.serving["main"].ref.precision


def test_a_built_engine_takes_over_and_everything_on_the_way_is_told():
    rig = Rig()
    assert rig.slot.state is None
    assert rig.serving == "fp32"
    rig.build.progress = [Progress("calibrating", 1, 8)]
    state = rig.improve()
    assert rig.serving == "int8"
    assert [(s.state, s.step) for s in rig.told] == [
        ("building", "starting"),
        ("building", "calibrating"),
        ("building", "loading"),
        ("ready", ""),
    ]
    assert rig.told[1].total == 8
    assert rig.told[2].candidate == ("fake", "int8")
    assert (state.started, state.ended) == (1100.0, 1100.0)
    assert state.report["chosen"]["precision"] == "int8"
    assert rig.build.requests[0]["slot"] == "main"
    assert rig.build.timeout_s == 120


def test_an_engine_that_was_built_before_serves_at_once_and_is_told_with_its_report():
    rig = Rig(FakeEngines(plan()))
    assert rig.serving == "int8"
    state = rig.improve()
    assert state.state == "ready"
    assert state.started is None
    assert state.ended is None
    assert state.report["spent_s"] == 3.0
    assert rig.build.requests == []
    assert rig.engines.loads == ["int8"]


def test_where_nothing_can_be_built_nothing_is():
    rig = Rig(FakeEngines(wanted=False))
    assert rig.improve() == BuildState("none")
    assert rig.build.requests == []


def test_a_build_that_chooses_what_serves_already_changes_nothing():
    rig = Rig(made=plan("fp32"))
    assert rig.improve().state == "ready"
    assert rig.pipelines.serving["main"] is rig.first
    assert rig.engines.loads == ["fp32"]


def test_progress_within_a_step_is_told_once_a_second():
    rig = Rig()

    def run(_request, _timeout_s, tell):
        for number in range(1, 41):
            rig.now_s += 0.1
            tell(Progress("calibrating", number, 40))
        raise BuildError("over")

    rig.slot.improve(rig.pipelines, run)
    told = [s.done for s in rig.told if s.step == "calibrating"]
    assert 4 <= len(told) <= 5
    assert told[0] == 1


@pytest.mark.parametrize("error", [BuildError("no pictures"), PlanError("foreign")])
def test_a_failed_build_leaves_what_served_and_is_told(error):
    rig = Rig(made=error)
    state = rig.improve()
    assert (state.state, state.reason) == ("failed", str(error))
    assert state.ended == 1100.0
    assert rig.pipelines.serving["main"] is rig.first


def test_an_engine_that_cannot_be_loaded_leaves_what_served():
    rig = Rig()
    rig.engines.refuses = BackendError("no memory on the GPU")
    state = rig.improve()
    assert (state.state, state.reason) == ("failed", "no memory on the GPU")
    assert state.report is not None
    assert rig.serving == "fp32"


def test_an_engine_that_cannot_take_over_leaves_what_served():
    rig = Rig()
    rig.pipelines.refuses = EngineError("no memory for buffers")
    assert rig.improve().reason == "no memory for buffers"
    assert rig.serving == "fp32"
    # What serves is the reference again: loading it anew proves nothing against the built engine.
    rig.slot.load()
    assert rig.slot.state.reason == "no memory for buffers"


def test_a_plan_that_cannot_be_read_back_is_a_failure():
    rig = Rig()
    rig.slot.improve(rig.pipelines, lambda *_: FakeBuild(FakeEngines())({}, 1, lambda _: None))
    assert rig.slot.state.state == "failed"
    assert "cannot be read back" in rig.slot.state.reason


def test_a_plan_of_other_settings_than_those_built_is_a_failure():
    rig = Rig()

    def run(*_args):
        rig.engines.built = plan(key="other")
        return FakeBuild(FakeEngines())({}, 1, lambda _: None)

    rig.slot.improve(rig.pipelines, run)
    assert rig.slot.state.state == "failed"
    assert rig.serving == "fp32"


def test_where_memory_holds_one_engine_only_the_old_one_goes_first_and_that_is_said():
    rig = Rig(made=plan(size=1000))
    rig.free = BESIDE_FACTOR * 1000 + BESIDE_BYTES - 1
    state = rig.improve()
    assert rig.pipelines.replaced == 1
    assert rig.serving == "int8"
    assert state.state == "ready"
    assert "memory for two engines was short" in state.reason


def test_where_memory_just_suffices_both_are_held():
    rig = Rig(made=plan(size=1000))
    rig.free = BESIDE_FACTOR * 1000 + BESIDE_BYTES
    assert rig.improve().reason == ""
    assert rig.pipelines.replaced == 0


def test_an_engine_that_breaks_soon_after_it_took_over_is_not_trusted_again():
    rig = Rig()
    rig.improve()
    rig.now_s += PROBATION_S - 1
    assert rig.slot.load().ref.precision == "fp32"
    state = rig.slot.state
    assert state.state == "failed"
    assert "int8 engine on fake failed within" in state.reason
    assert state.report is not None
    # Nor later, whatever happens to the reference.
    rig.now_s += 10 * PROBATION_S
    assert rig.slot.load().ref.precision == "fp32"


def test_an_engine_that_breaks_after_a_long_time_is_loaded_again():
    rig = Rig()
    rig.improve()
    rig.now_s += PROBATION_S + 1
    assert rig.slot.load().ref.precision == "int8"
    assert rig.slot.state.state == "ready"
    # And begins its probation anew.
    assert rig.slot.load().ref.precision == "fp32"


def test_an_engine_that_breaks_before_its_success_is_told_is_not_told_as_one():
    rig = Rig()
    rig.pipelines.before_done = rig.slot.load
    rig.slot.improve(rig.pipelines, rig.build)
    assert rig.slot.state.state == "failed"


def test_a_cached_engine_that_broke_before_it_was_looked_at_does_not_come_back():
    rig = Rig(FakeEngines(plan()))
    rig.slot.load()
    rig.slot.improve(rig.pipelines, rig.build)
    assert rig.slot.state.state == "failed"
    assert rig.engines.loads == ["int8", "fp32"]


def test_a_reference_that_breaks_is_no_news_of_the_built_engine():
    rig = Rig()
    rig.slot.load()
    assert rig.slot.state is None


def test_what_the_stop_of_the_agent_breaks_off_is_no_failure():
    rig = Rig(made=BuildError("the build was cancelled"))
    rig.slot.stop()
    assert rig.improve() == BuildState("none", reason=STOPPED)


def test_a_mistake_of_ours_is_told_and_ends_nothing():
    rig = Rig()

    def run(*_args):
        raise ZeroDivisionError

    rig.slot.improve(rig.pipelines, run)
    assert rig.slot.state.state == "failed"
    assert "ZeroDivisionError" in rig.slot.state.reason


def test_an_old_engine_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr("agent.slotswitch.TAKE_OVER_S", 0.01)
    rig = Rig()
    rig.pipelines.swap = lambda _slot, _model: Future()
    assert "did not end within" in rig.improve().reason


def test_a_model_file_that_has_gone_is_told():
    rig = Rig()

    def gone(_request):
        raise ModelFileError("m.onnx is missing")

    rig.slot._open = gone
    assert rig.improve().reason == "m.onnx is missing"


def test_a_report_that_is_none_is_told_as_empty():
    bare = dataclasses.replace(plan(), sidecar={"backend": "fake", "precision": "int8"})
    assert Rig(made=bare).improve().report == {"candidates": []}


def test_a_postponed_build_is_told_and_is_to_be_done_again():
    rig = Rig(made=PostponedError("an update is being proven"))
    assert not rig.slot.improve(rig.pipelines, rig.build)
    assert rig.slot.state == BuildState("none", reason=POSTPONED)
    rig.build = FakeBuild(rig.engines)
    assert rig.slot.improve(rig.pipelines, rig.build)
    assert rig.serving == "int8"


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Rig()


def test_a_candidate_serves_on_trial_while_the_slots_own_model_stays_what_it_was(rig):
    own = rig.slot.request
    rig.slot.try_out(rig.other("v2"), rig.pipelines)
    assert rig.serving == "bf16"
    assert rig.slot.on_trial
    assert rig.slot.request == rig.slot.configured == own


def test_a_candidate_whose_engine_fails_for_good_is_followed_by_the_model_before(rig):
    rig.slot.try_out(rig.other("v2"), rig.pipelines)
    # What the runner does.
    rig.pipelines.serving["main"] = rig.slot.load()
    assert rig.serving == "fp32"
    assert not rig.slot.on_trial
    # The failure says nothing against the engines of the model before.
    assert rig.slot.state is None
    rig.engines.built = plan()
    assert rig.slot.load().ref.precision == "int8"


def test_a_candidate_that_was_not_built_is_never_tried(rig):
    wanted = rig.other("v2")
    rig.others["v2"].built = None
    with pytest.raises(BuildError, match="not in the plan cache"):
        rig.slot.try_out(wanted, rig.pipelines)
    assert rig.pipelines.serving["main"] is rig.first
    assert not rig.slot.on_trial


@pytest.mark.parametrize("where", ["load", "swap"])
def test_a_candidate_that_cannot_take_over_leaves_what_served(rig, where):
    wanted = rig.other("v2")
    if where == "load":
        rig.others["v2"].refuses = BackendError("no memory")
    else:
        rig.pipelines.refuses = EngineError("no memory")
    with pytest.raises(EngineError, match="no memory"):
        rig.slot.try_out(wanted, rig.pipelines)
    assert rig.pipelines.serving["main"] is rig.first
    assert not rig.slot.on_trial
    rig.pipelines.refuses = None
    rig.slot.restore(rig.slot.request, rig.pipelines)
    assert rig.pipelines.serving["main"] is rig.first


def test_a_committed_model_is_what_is_loaded_from_then_on(rig):
    wanted = rig.other("v2")
    rig.slot.try_out(wanted, rig.pipelines)
    tried = rig.pipelines.serving["main"]
    rig.slot.restore(wanted, rig.pipelines)
    assert rig.pipelines.serving["main"] is tried
    assert not rig.slot.on_trial
    assert rig.slot.request == wanted
    rig.now_s += PROBATION_S + 1
    assert rig.slot.load().ref.precision == "bf16"
    assert rig.slot.configured != wanted


def test_its_engine_is_told_as_ready_and_is_not_loaded_once_more(rig):
    wanted = rig.other("v2")
    rig.slot.try_out(wanted, rig.pipelines)
    rig.slot.assign(wanted)
    assert rig.improve().state == "ready"
    assert rig.others["v2"].loads == ["bf16"]


def test_a_committed_engine_that_breaks_soon_is_followed_by_its_own_reference(rig):
    wanted = rig.other("v2")
    rig.slot.try_out(wanted, rig.pipelines)
    rig.slot.assign(wanted)
    assert rig.slot.load().ref.precision == "fp32"
    assert rig.others["v2"].loads == ["bf16", "fp32"]
    assert rig.slot.state.state == "failed"


def test_distrust_of_one_models_engine_is_none_of_the_next_ones(rig):
    rig.improve()
    rig.slot.load()
    assert rig.slot.state.state == "failed"
    rig.slot.assign(rig.other("v2"))
    assert rig.slot.state is None
    assert rig.slot.load().ref.precision == "bf16"


def test_going_back_switches_once_and_is_idempotent(rig):
    own = rig.slot.request
    rig.slot.try_out(rig.other("v2"), rig.pipelines)
    rig.slot.restore(own, rig.pipelines)
    back = rig.pipelines.serving["main"]
    assert rig.serving == "fp32"
    assert not rig.slot.on_trial
    rig.slot.restore(own, rig.pipelines)
    assert rig.pipelines.serving["main"] is back


def test_going_back_before_anything_was_loaded_only_says_what_is_to_be(rig):
    wanted = rig.other("v2")
    rig.pipelines.serving.clear()
    rig.slot.restore(wanted, rig.pipelines)
    assert rig.pipelines.serving == {}
    assert rig.slot.request == wanted


def test_what_was_noted_last_is_not_believed_against_what_really_serves(rig):
    own, wanted = rig.slot.request, rig.other("v2")
    rig.pipelines.before_done = rig.slot.load
    # The active engine breaks, and is loaded anew, in the very moment of the swap.
    rig.slot.try_out(wanted, rig.pipelines)
    rig.pipelines.before_done = lambda: None
    served = rig.pipelines.serving["main"]
    rig.pipelines.serving["main"] = dataclasses.replace(
        served, ref=dataclasses.replace(served.ref, digest="sha256:v2")
    )
    rig.slot.restore(own, rig.pipelines)
    assert rig.serving == "fp32"


def test_what_is_to_go_goes_also_where_the_other_cannot_be_loaded_beside_it(rig):
    own = rig.slot.request
    rig.slot.try_out(rig.other("v2"), rig.pipelines)
    rig.pipelines.refuses = EngineError("no memory for buffers")
    rig.slot.restore(own, rig.pipelines)
    assert rig.pipelines.replaced == 1
    assert rig.serving == "fp32"
