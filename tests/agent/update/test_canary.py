"""When a candidate on trial is healthy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.bundle.manifest import CanaryRules
from agent.update.canary import MIN_FRAMES, STEADY_FRAMES, Health, hopeless, judge_canary

USUAL = Health(
    seconds=30.0,
    results=300,
    late=0,
    errors=0,
    objects=900,
    lossless_fps=0.0,
    p50_ms=20.0,
    p95_ms=30.0,
)
RULES = CanaryRules(max_detection_drift=0.5, max_memory_growth_mb=100)


def judged(growth_mb: float = 0.0, rules: CanaryRules = RULES, before=USUAL, broken="", **changes):
    return judge_canary(before, replace(USUAL, **changes), growth_mb, rules, broken=broken)


def test_the_same_health_passes_and_both_are_told():
    finding = judged()
    assert finding.passed
    assert finding.figures["before"]["fps"] == finding.figures["during"]["fps"] == 10.0
    assert finding.figures["fps_ratio"] == finding.figures["latency_ratio"] == 1.0
    assert finding.figures["detection_drift"] == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"results": 150, "late": 150},
            "0.50 of the frames that were analysed before (5.0 a second, 10.0 before); at least",
        ),
        ({"p95_ms": 150.0, "p50_ms": 100.0}, "5.00 times as late (p95 150.0 ms, 30.0 ms before)"),
        ({"results": 290, "errors": 10}, "fails on 10 of 300 frames (3.3%); at most 1.0%"),
        ({"objects": 300}, "1.00 objects in a frame, 3.00 were found before, a change of 0.67"),
        ({"growth_mb": 400.0}, "400 MB more than before; at most 100 MB"),
        ({"broken": "its engine failed for good"}, "its engine failed for good"),
    ],
)
def test_ill_health_is_told_with_figure_and_limit(changes, reason):
    finding = judged(**changes)
    assert not finding.passed
    assert reason in finding.reason


def test_fewer_frames_of_a_live_camera_are_not_the_models_fault():
    finding = judged(results=30, objects=90)
    assert finding.passed
    assert finding.figures["fps_ratio"] == 1.0


def test_a_camera_that_is_away_before_or_during_says_nothing():
    away = {"results": 0, "objects": 0, "p50_ms": 0.0, "p95_ms": 0.0}
    finding = judged(**away)
    assert finding.passed
    assert "300 frames before and 0 during it" in finding.figures["note"]
    assert judged(before=replace(USUAL, **away)).passed
    few = judged(results=MIN_FRAMES - 1, late=500, p95_ms=900.0, p50_ms=900.0)
    assert few.passed


def test_errors_count_however_few_frames_there_are():
    assert not judged(results=1, errors=1).passed


def test_a_camera_that_waits_for_the_model_is_judged_by_its_rate():
    before = replace(USUAL, lossless_fps=100.0)
    slow = judged(before=before, lossless_fps=40.0)
    assert slow.figures["fps_ratio"] == 0.4
    assert not slow.passed
    # A file that ended before the trial.
    assert judged(before=before, lossless_fps=0.0).passed


def test_with_few_frames_a_busy_moment_does_not_make_a_model_slow():
    few = replace(USUAL, results=STEADY_FRAMES - 1)
    assert judge_canary(few, replace(few, p95_ms=90.0), 0, RULES).passed
    assert not judge_canary(few, replace(few, p95_ms=90.0, p50_ms=60.0), 0, RULES).passed
    assert not judge_canary(USUAL, replace(USUAL, p95_ms=90.0), 0, RULES).passed


def test_detections_drift_both_ways_and_are_judged_only_if_asked():
    assert judged(objects=1400).figures["detection_drift"] == pytest.approx(0.556, abs=1e-3)
    assert not judged(objects=1400).passed
    assert judged(objects=0, rules=CanaryRules()).passed


def test_objects_where_there_were_none_are_a_great_change_but_a_finite_one():
    finding = judged(before=replace(USUAL, objects=0))
    assert not finding.passed
    assert finding.figures["detection_drift"] == 30.0


def test_a_trial_ends_early_only_when_errors_leave_no_hope():
    assert not hopeless(replace(USUAL, errors=2, results=0), RULES)
    assert hopeless(replace(USUAL, errors=3, results=0), RULES)
    assert not hopeless(replace(USUAL, errors=3, results=10_000), RULES)
