"""Candidates made of the demo model, good and bad: built, judged, shadowed and tried for real."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules
from agent.update import proofs
from tests.fakes.proving import Proving
from tests.vectors import conveyors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GATE = GateRules(
    metric="map50_95", min_score=0.7, max_drop_vs_active=0.05, max_latency_ratio=2.5, memory_mb=500
)
SHADOW = ShadowRules(seconds=3.0, min_agreement=0.8)
CANARY = CanaryRules(seconds=3.0, max_latency_ratio=3.0)
RULES = {"gate": GATE, "shadow": SHADOW, "canary": CANARY}


@pytest.fixture(scope="module")
def golden():
    return conveyors.golden(12)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def proving(tmp_path, cache):
    with Proving(tmp_path, cache=cache) as found:
        yield found


def account(proving: Proving) -> None:
    """Every frame that the camera gave is a result, once, in order."""
    results = list(proving.sink.results)
    assert [r.frame_index for r in results] == list(range(len(results)))
    assert sum(r.dropped for r in results) == 0


def on_disk(model: bytes, *folders: Path) -> list[Path]:
    """Files that hold a part of a model's weights."""
    parts = [model[at : at + 64] for at in range(1000, len(model) - 64, len(model) // 16)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(part in path.read_bytes() for part in parts)]


def test_a_good_candidate_passes_every_stage_no_frame_is_lost_and_nothing_touches_a_disk(
    proving, golden, tmp_path, cache
):
    before = proving.digest
    model = conveyors.renumbered()
    candidate = proving.candidate(model, golden, **RULES)
    built, gate, shadow, canary = proving.stages(candidate, "build", "gate", "shadow", "canary")
    assert built.figures["chosen"]["precision"] == "fp32"
    # Its classes are numbered otherwise, and by their names it answers the same.
    assert gate.figures["score"] == pytest.approx(gate.figures["active_score"], abs=0.001)
    assert gate.figures["agreement"]["share"] == 1.0
    assert gate.figures["live"]["frames"] == 8
    assert gate.figures["live"]["share"] == 1.0
    assert shadow.figures["share"] == 1.0
    assert shadow.figures["cameras"]["belt"] >= 3
    assert canary.passed, canary.reason
    assert on_disk(model, tmp_path, cache) == []
    assert on_disk(model, candidate.files) == [candidate.files / "model.onnx"]
    assert candidate.files.stat().st_dev == Path("/dev/shm").stat().st_dev
    proving.proofs.commit(candidate)
    after = proving.digest
    assert after != before
    proving.proofs.revert("main", None)
    assert proving.digest == before
    account(proving)
    seen = [r.model.digest for r in proving.sink.results]
    assert [b for a, b in pairwise(["", *seen]) if a != b][:2] == [before, after]
    for finding in (built, gate, shadow, canary):
        assert json.loads(finding.text()) == finding.figures
        assert len(finding.text()) < 8000


def test_half_the_accuracy_is_refused_by_the_gate(proving, golden):
    candidate = proving.candidate(conveyors.halved(), golden, **RULES)
    _, gate = proving.stages(candidate, "build", "gate")
    assert not gate.passed
    assert 0.25 < gate.figures["score"] < 0.55
    assert f"its map50_95 is {gate.figures['score']:.4f}" in gate.reason
    assert "below the active model's" in gate.reason


def test_half_the_accuracy_is_refused_by_shadow_and_canary_where_the_gate_asks_nothing(proving):
    rules = {"shadow": SHADOW, "canary": CanaryRules(seconds=3.0, max_detection_drift=0.3)}
    candidate = proving.candidate(conveyors.halved(), **rules)
    _, shadow = proving.stages(candidate, "build", "shadow")
    assert "agrees with the active model on" in shadow.reason
    assert shadow.figures["share"] < 0.8
    (canary,) = proving.stages(candidate, "canary")
    assert "objects in a frame" in canary.reason
    before = proving.slot.configured
    proving.proofs.revert("main", None)
    assert proving.slot.request == before
    account(proving)


def test_a_model_five_times_as_slow_is_refused_by_the_gate(proving):
    candidate = proving.candidate(conveyors.slow(), gate=GateRules(max_latency_ratio=2.5))
    _, gate = proving.stages(candidate, "build", "gate")
    assert "times as long as the active model; at most 2.5 is allowed" in gate.reason
    assert gate.figures["latency_ratio"] > 3


def test_a_much_slower_model_is_sent_back_by_the_canarys_own_rules(proving):
    candidate = proving.candidate(conveyors.slow(8), canary=CanaryRules(seconds=3.0))
    _, canary = proving.stages(candidate, "build", "canary")
    assert not canary.passed
    assert "times as late" in canary.reason
    proving.proofs.revert("main", None)
    assert proving.pipeline.model("main").ref.name == "conveyor-n"


@pytest.mark.parametrize(
    ("model", "reason"),
    [(conveyors.not_a_number, "NaN"), (conveyors.hungry, "allocate memory")],
)
def test_models_that_cannot_run_are_refused_when_they_are_built(proving, model, reason):
    (finding,) = proving.stages(proving.candidate(model(), **RULES), "build")
    assert not finding.passed
    assert reason in finding.reason
    account(proving)


HOSTILE = """
import ctypes, sys
from agent.childside import serve
from agent.update import trialmodel
from agent.update.trialchild import act
def reply(self, pixels, every=False):
    {step}
trialmodel.TrialModel.reply = reply
sys.exit(serve(act))
"""


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("ctypes.string_at(0)", "SIGSEGV"),
        ("self.held = bytearray(2**60)", "MemoryError"),
    ],
)
def test_a_model_that_crashes_its_runtime_takes_only_the_trial_with_it(
    tmp_path, cache, step, reason
):
    command = (sys.executable, "-c", HOSTILE.format(step=step))
    with Proving(tmp_path, cache=cache, trial_command=command) as proving:
        candidate = proving.candidate(conveyors.retrained(), **RULES)
        _, gate = proving.stages(candidate, "build", "gate")
        assert not gate.passed
        assert reason in gate.reason
        account(proving)


def test_a_camera_that_is_away_fails_no_stage(proving, golden, monkeypatch):
    monkeypatch.setattr(proofs, "SHADOW_PATIENCE_S", 1.0)
    candidate = proving.candidate(conveyors.retrained(), golden, **RULES)
    proving.feed.away.set()
    _, gate, shadow, canary = proving.stages(candidate, "build", "gate", "shadow", "canary")
    assert canary.passed, canary.reason
    assert gate.figures["live"]["frames"] == 0
    assert shadow.figures["frames"] <= 1
    assert "too few to judge" in canary.figures["note"]
