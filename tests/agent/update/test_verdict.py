"""What a gate and a shadow find of figures and rules."""

from __future__ import annotations

import pytest

from agent.bundle.manifest import GateRules, ShadowRules
from agent.errors import GateError
from agent.update.verdict import MIN_OBJECTS, judge_gate, judge_shadow


def measured(**changes: object) -> dict[str, object]:
    """Of a good candidate."""
    return {
        "metric": "map50_95",
        "pictures": 24,
        "score": 0.81,
        "active_score": 0.80,
        "agreement": {"share": 0.97},
        "live": {"frames": 8, "share": 0.96, "active_objects": 40, "candidate_objects": 41},
        "failures": 0,
        "failure": "",
        "active_error": "",
        "memory_mb": 50.0,
        "latency_ms": {"p50": 10.0, "p95": 12.0},
        "active_latency_ms": {"p50": 9.0, "p95": 11.0},
        "latency_ratio": 1.11,
        **changes,
    }


STRICT = GateRules(
    metric="map50_95",
    min_score=0.8,
    max_drop_vs_active=0.0,
    latency_p95_ms=12.0,
    max_latency_ratio=1.2,
    memory_mb=50,
)


def test_what_reaches_every_limit_passes_and_its_figures_are_told():
    finding = judge_gate(measured(), STRICT)
    assert finding.passed
    assert finding.reason == ""
    assert finding.figures["score"] == 0.81
    assert "failure" not in finding.figures
    assert '"latency_ratio":1.11' in finding.text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": 0.41}, "its map50_95 is 0.4100; at least 0.8 is asked"),
        ({"active_score": 0.85}, "0.0400 below the active model's 0.8500; at most 0 is allowed"),
        ({"latency_ms": {"p50": 10, "p95": 12.5}}, "12.5 ms for a picture (p95); at most 12 ms"),
        ({"latency_ratio": 5.02}, "5.02 times as long as the active model; at most 1.2"),
        ({"memory_mb": 950.0}, "950 MB of memory; at most 50 MB"),
        ({"failures": 3, "failure": "NaN in output0"}, "fails on 3 of the pictures: NaN in out"),
        ({"score": None}, "needs a golden set and its ground truth"),
    ],
)
def test_what_misses_one_limit_fails_with_figure_and_limit(change, reason):
    finding = judge_gate(measured(**change), STRICT)
    assert not finding.passed
    assert reason in finding.reason


def test_every_reason_is_told():
    reason = judge_gate(measured(score=0.4, memory_mb=60.0), STRICT).reason
    assert all(part in reason for part in ("at least 0.8", "below the active", "60 MB"))


def test_without_rules_only_failures_count():
    nothing = GateRules(metric="map50_95")
    assert judge_gate(measured(score=None, latency_ratio=90.0), nothing).passed
    assert not judge_gate(measured(failures=1, failure="x"), nothing).passed


def test_an_active_model_that_cannot_run_says_nothing_of_the_candidate():
    broken = measured(active_error="m.onnx is gone", active_score=None, latency_ratio=None)
    with pytest.raises(GateError, match=r"cannot be compared.*m\.onnx is gone"):
        judge_gate(broken, STRICT)
    assert judge_gate(broken, GateRules(metric="map50_95", min_score=0.8)).passed
    with pytest.raises(GateError):
        judge_gate(broken, GateRules(metric="agreement", min_score=0.8))


def test_agreement_is_of_live_frames_where_there_is_no_golden_set():
    without = measured(metric="agreement", pictures=0, score=None, active_score=None)
    assert judge_gate(without, GateRules(min_score=0.95)).passed
    reason = judge_gate(without, GateRules(max_drop_vs_active=0.03)).reason
    assert "0.0400 below the active model's 1.0000" in reason
    dark = {**without, "live": {"frames": 0, "share": 1.0}}
    assert "a golden set, or live frames" in judge_gate(dark, GateRules(min_score=0.5)).reason


def shadowed(**changes: object) -> dict[str, object]:
    return {
        "frames": 20,
        "share": 0.9,
        "active_objects": 30,
        "candidate_objects": 31,
        "failures": 0,
        "failure": "",
        "latency_ms": {"p50": 10.0, "p95": 12.0},
        "cameras": {"belt": 20},
        **changes,
    }


def test_a_shadow_that_agrees_enough_passes():
    finding = judge_shadow(shadowed(), ShadowRules(min_agreement=0.9))
    assert finding.passed
    assert finding.figures["frames"] == 20


def test_a_shadow_that_agrees_too_little_fails_with_figures():
    finding = judge_shadow(shadowed(share=0.61), ShadowRules(min_agreement=0.9))
    assert finding.reason == (
        "it agrees with the active model on 61.0% of 61 objects in 20 live frames; "
        "at least 90.0% is asked"
    )
    assert judge_shadow(shadowed(share=0.61), ShadowRules()).passed


def test_frames_that_never_came_or_showed_nothing_say_nothing_against_it():
    dark = shadowed(frames=0, share=0.0, active_objects=0, candidate_objects=0, cameras={})
    finding = judge_shadow(dark, ShadowRules(min_agreement=0.99))
    assert finding.passed
    assert finding.figures["frames"] == 0
    assert "0 objects in 0 frames" in finding.figures["note"]
    few = shadowed(share=0.0, active_objects=MIN_OBJECTS - 1, candidate_objects=0)
    assert judge_shadow(few, ShadowRules(min_agreement=0.99)).passed


def test_a_shadow_that_fails_on_frames_fails():
    finding = judge_shadow(shadowed(failures=2, failure="NaN"), ShadowRules())
    assert finding.reason == "it fails on 2 of the live frames: NaN"
