"""How candidates take over, are watched, kept and sent back: real threads, engines of a test's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent import builder
from agent.builder import Builder
from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules
from agent.errors import GateError
from agent.frame import Frame
from agent.modelslot import ModelSlot
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.update import proofs as module
from agent.update.memoryfolder import MemoryFolder
from agent.update.ports import Candidate, Finding, Rules, UpdateCancelled
from agent.update.proofs import PipelineProofs
from engines.backend import Progress
from engines.errors import BackendError, InferenceError
from tests.fakes.model import loaded, one_box
from tests.fakes.sink import ListSink
from tests.fakes.slots import FakeEngines, plan, request
from tests.vectors.bundles import make_bundle, read_bundle, tiny_model

SOON_S = 30.0
TRIAL_S = 0.8


class Ticking:
    """A live camera that gives a small frame every few milliseconds."""

    live = True

    def __init__(self) -> None:
        self.away = threading.Event()

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        index = 0
        while not stop.wait(0.01):
            if not self.away.is_set():
                pixels = np.full((32, 32, 3), 100, np.uint8)
                deliver(Frame(pixels, "belt", index, time.monotonic_ns(), time.time()))
                index += 1


class Behaving(FakeEngines):
    """Engines of one model, which does what a test says."""

    def __init__(self, digest: str, function=one_box) -> None:
        super().__init__(plan(), digest=digest)
        self.function = function

    def _load(self, precision: str):
        self.loads.append(precision)
        model = loaded(self.function, precision=precision)
        return replace(model, ref=replace(model.ref, digest=self.digest))


class Rig:
    """A pipeline that serves v1, and a bundle v2."""

    def __init__(self, folder: Path, **arguments) -> None:
        self.own = Behaving("sha256:v1")
        self.others: dict[str, Behaving] = {}
        self.folder = folder
        self.feed = Ticking()
        self.sink = ListSink()
        self.memory = MemoryFolder()
        self.slot = ModelSlot(request(), self.open, lambda: None)
        self.pipeline = Pipeline(
            cameras={"belt": CameraPlan(self.feed, "main")},
            models={"main": self.slot.load},
            sink=self.sink,
            queue_frames=2,
        )
        slots = {"main": self.slot}
        idle = (sys.executable, "-c", "raise SystemExit(1)")
        self.builder = Builder(slots, self.pipeline, idle)
        self.proofs = PipelineProofs(self.pipeline, slots, self.builder, self.memory, **arguments)
        self.told: list[Progress] = []

    def open(self, of) -> Behaving:
        return self.others.get(str(of.config.path), self.own)

    def __enter__(self) -> Rig:  # noqa: PYI034 - Self is not in Python 3.10
        self.pipeline.load()
        self.pipeline.start()
        self.builder.start()
        self.sink.wait_for(20, SOON_S)
        return self

    def __exit__(self, *_error: object) -> None:
        self.builder.cancel()
        self.pipeline.stop()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()
        assert self.builder.close(SOON_S)
        self.memory.close()

    def candidate(self, function=one_box, version: str = "2", **rules: object) -> Candidate:
        """A bundle whose engine was built."""
        place = self.folder / version
        packed = make_bundle(place, {"model.onnx": tiny_model()}, version=version)
        manifest = read_bundle(place).manifest
        files = self.memory.make(packed.digest, 1)
        self.others[str(files / "model.onnx")] = Behaving(f"sha256:v{version}", function)
        asked = CanaryRules.model_validate({"seconds": TRIAL_S, **rules})
        given = Rules(GateRules(), ShadowRules(seconds=0.0), asked)
        return Candidate("main", packed.digest, manifest, files, given)

    def canary(self, candidate: Candidate) -> Finding:
        return self.proofs.canary(candidate, self.told.append)

    def served(self) -> str:
        """Digest of the model of a result that is new."""
        count = len(self.sink.results)
        return self.sink.wait_for(count + 3, SOON_S)[-1].model.digest

    def account(self) -> None:
        """Every frame that the camera gave is a result, once, in order."""
        results = list(self.sink.results)
        assert [r.frame_index for r in results] == list(range(len(results)))
        assert all(r.dropped == 0 for r in results)


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "BREATH_S", 0.0)
    monkeypatch.setattr(module, "BEFORE_S", TRIAL_S)
    with Rig(tmp_path) as found:
        yield found


def test_a_healthy_candidate_serves_and_no_frame_is_lost_on_the_way_or_back(rig):
    candidate = rig.candidate()
    finding = rig.canary(candidate)
    assert finding.passed, finding.reason
    assert finding.figures["during"]["frames"] > 20
    assert rig.served() == "sha256:v2"
    assert rig.slot.on_trial
    rig.proofs.revert("main", None)
    assert rig.served() == "sha256:v1"
    assert rig.canary(rig.candidate(version="3")).passed
    rig.account()
    digests = [r.model.digest for r in rig.sink.results]
    changes = [b for a, b in zip(["", *digests], digests, strict=False) if a != b]
    assert changes == ["sha256:v1", "sha256:v2", "sha256:v1", "sha256:v3"]
    assert {p.step for p in rig.told} == {"measuring what serves", "on trial"}


def test_a_committed_candidate_stays_and_the_next_falls_back_to_it(rig):
    second = rig.candidate()
    assert rig.canary(second).passed
    for _ in range(2):
        rig.proofs.commit(second)
        assert rig.served() == "sha256:v2"
    third = rig.candidate(version="3")
    assert rig.canary(third).passed
    for _ in range(2):
        rig.proofs.revert("main", second)
        assert rig.served() == "sha256:v2"
    assert rig.slot.request.config.path == second.files / "model.onnx"
    rig.account()


def test_a_commit_after_a_restart_has_the_candidate_serve(rig):
    rig.proofs.commit(rig.candidate())
    assert rig.served() == "sha256:v2"


def test_what_was_committed_is_installed_before_anything_is_loaded(tmp_path):
    rig = Rig(tmp_path)
    rig.proofs.install(rig.candidate())
    with rig:
        assert {r.model.digest for r in rig.sink.results} == {"sha256:v2"}
        rig.proofs.revert("main", None)
        assert rig.served() == "sha256:v1"


def test_a_candidate_whose_engine_fails_for_good_is_followed_by_the_model_before(rig):
    def broken(_images):
        raise InferenceError("device lost")

    finding = rig.canary(rig.candidate(broken, seconds=30.0, max_error_rate=1.0))
    said = "(it said: device lost)"
    assert finding.reason == f"its engine failed for good; the one before serves {said}"
    # Those before the canary began to count are not among them.
    assert finding.figures["during"]["errors"] >= 1
    assert rig.served() == "sha256:v1"
    rig.proofs.revert("main", None)
    assert rig.served() == "sha256:v1"


def test_a_candidate_that_answers_nonsense_is_sent_back_early(rig):
    def nonsense(images):
        return np.full_like(one_box(images), np.nan)

    finding = rig.canary(rig.candidate(nonsense, seconds=30.0))
    assert finding.figures["during"]["seconds"] < 20.0
    assert "100.0%); at most 1.0% is allowed (it said: " in finding.reason
    assert "NaN" in finding.reason
    rig.proofs.revert("main", None)
    assert rig.served() == "sha256:v1"


def pausing(seconds: float):
    pause = threading.Event()

    def slow(images):
        pause.wait(seconds)
        return one_box(images)

    return slow


def test_a_candidate_that_is_late_fails_with_figures(rig):
    finding = rig.canary(rig.candidate(pausing(0.05)))
    assert not finding.passed
    assert "times as late" in finding.reason
    assert "of the frames that were analysed before" in finding.reason
    assert finding.figures["latency_ratio"] > 2.0


def test_a_candidate_that_hangs_is_noticed_by_the_frames_that_wait(rig, monkeypatch):
    monkeypatch.setattr(module, "STALL_S", 0.3)
    released = threading.Event()

    def hangs(images):
        assert released.wait(SOON_S)
        return one_box(images)

    try:
        finding = rig.canary(rig.candidate(hangs, seconds=20.0))
        assert "it has given nothing for 0.3 s while frames waited" in finding.reason
    finally:
        released.set()
    rig.proofs.revert("main", None)
    assert rig.served() == "sha256:v1"


def test_a_camera_that_is_away_is_not_the_candidates_fault(rig):
    rig.feed.away.set()
    finding = rig.canary(rig.candidate())
    assert finding.passed
    assert "too few to judge" in finding.figures["note"]


def test_a_candidate_that_takes_much_memory_is_told_with_how_much(rig):
    taken: list[np.ndarray] = []

    def hoards(images):
        if len(taken) < 1:
            taken.append(np.ones(200 * 2**20, np.uint8))
        return one_box(images)

    finding = rig.canary(rig.candidate(hoards, max_memory_growth_mb=100))
    assert "MB more than before; at most 100 MB" in finding.reason


def test_a_candidate_that_cannot_be_loaded_leaves_what_served(rig):
    candidate = rig.candidate()
    rig.others[str(candidate.files / "model.onnx")].refuses = BackendError("no memory")
    finding = rig.canary(candidate)
    assert finding.reason == "it cannot take over: no memory"
    assert rig.served() == "sha256:v1"
    rig.account()


def test_an_active_model_that_breaks_during_the_trial_of_another_slot_matters_not(rig):
    finding = rig.proofs.shadow(rig.candidate(), rig.told.append)
    assert finding.passed
    assert finding.figures == {"frames": 0, "note": "not asked for"}


def test_a_slot_that_no_camera_uses_is_changed_without_a_trial(rig, monkeypatch):
    monkeypatch.setattr(rig.pipeline, "runners", {})
    candidate = rig.candidate()
    for stage in (rig.proofs.shadow, rig.proofs.canary):
        finding = stage(candidate, rig.told.append)
        assert finding.passed
        assert finding.figures["note"] == module.NO_CAMERA
    rig.proofs.commit(candidate)
    assert rig.slot.request.config.path == candidate.files / "model.onnx"


class Meanwhile:
    """A stage that runs in a thread, until the test ends it."""

    def __init__(self, stage, candidate: Candidate, until: str) -> None:
        self.outcome: object = None
        self._until = until
        self._reached = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(stage, candidate))
        self._thread.start()
        assert self._reached.wait(SOON_S)

    def _run(self, stage, candidate: Candidate) -> None:
        try:
            self.outcome = stage(candidate, self._tell)
        except (UpdateCancelled, GateError) as error:
            self.outcome = error
        finally:
            self._reached.set()

    def _tell(self, progress: Progress) -> None:
        if progress.step == self._until:
            self._reached.set()

    def join(self) -> object:
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()
        return self.outcome


@pytest.mark.parametrize("step", ["measuring what serves", "on trial"])
def test_a_trial_can_be_cancelled(rig, step):
    running = Meanwhile(rig.proofs.canary, rig.candidate(seconds=600.0), step)
    rig.proofs.cancel()
    assert isinstance(running.join(), UpdateCancelled)
    rig.proofs.revert("main", None)
    assert rig.served() == "sha256:v1"
    rig.account()


def test_a_cancel_is_of_what_runs_and_not_of_what_comes(rig):
    rig.proofs.cancel()
    assert rig.canary(rig.candidate()).passed


CHILD = """
import json, os, signal, sys, tempfile, time
os.setpgid(0, 0)
request = json.loads(sys.stdin.readline())
def say(**message):
    print(json.dumps(message), flush=True)
"""


def child(body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", CHILD + body)


@pytest.fixture
def with_children(tmp_path, monkeypatch):
    """A rig whose processes do what a test says."""
    monkeypatch.setattr(builder, "BREATH_S", 0.0)
    rigs: list[Rig] = []

    def make(body: str) -> Rig:
        rigs.append(Rig(tmp_path, build_command=child(body), trial_command=child(body)))
        return rigs[-1].__enter__()

    yield make
    for rig in rigs:
        rig.__exit__()


STAGES = ["build", "gate", "shadow"]


def stage_of(rig: Rig, name: str, candidate: Candidate):
    watched = replace(candidate, rules=replace(candidate.rules, shadow=ShadowRules(seconds=0.1)))
    return lambda tell: getattr(rig.proofs, name)(watched, tell)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("number", ["SIGSEGV", "SIGKILL", "SIGBUS"])
def test_a_candidate_that_crashes_its_process_is_refused_and_what_serves_serves_on(
    with_children, name, number
):
    rig = with_children(f"os.kill(os.getpid(), signal.{number})")
    finding = stage_of(rig, name, rig.candidate())(rig.told.append)
    assert not finding.passed
    assert number in finding.reason
    assert rig.served() == "sha256:v1"
    rig.account()


@pytest.mark.parametrize("name", STAGES)
def test_a_fault_of_the_machine_is_none_of_the_candidates(with_children, name):
    rig = with_children("say(error='the disk is full', kind='PlanError')")
    with pytest.raises(GateError, match="the disk is full"):
        stage_of(rig, name, rig.candidate())(rig.told.append)


@pytest.mark.parametrize("name", STAGES)
def test_a_process_can_be_cancelled(with_children, name):
    step = "say(progress={'step': 'busy', 'done': 0, 'total': 0}); time.sleep(600)"
    rig = with_children(step)
    run = stage_of(rig, name, rig.candidate())
    running = Meanwhile(lambda _candidate, tell: run(tell), rig.candidate(version="3"), "busy")
    rig.proofs.cancel()
    assert isinstance(running.join(), UpdateCancelled)


def test_temporary_files_of_a_process_lie_in_memory(with_children):
    body = """
value = {"rows": [], "chosen": {}, "spent_s": 0.0}
say(progress={"step": tempfile.gettempdir(), "done": 0, "total": 0})
say(report={"plan": "ab", "value": value})
"""
    rig = with_children(body)
    rig.proofs.build(rig.candidate(), rig.told.append)
    assert rig.told[0].step == str(rig.memory.work)
    assert Path(rig.told[0].step).stat().st_dev == Path("/dev/shm").stat().st_dev


def test_while_something_is_proven_nothing_is_built_in_the_background(rig):
    rig.own.built = None
    seen: list[object] = []

    def look(progress: Progress) -> None:
        rig.builder.want("main")
        seen.append(rig.slot.state)

    assert rig.proofs.canary(rig.candidate(), look).passed
    assert set(seen) == {None}
