"""That the measurements run and add up; never how fast anything is."""

from __future__ import annotations

import pytest

from agent.benchmark import (
    ReplayFeed,
    bench_model,
    engine_rate,
    live_ages,
    noise_pictures,
    pipeline_rate,
)
from engines.errors import InferenceError
from tests.fakes.model import loaded
from tests.vectors.models import make_model


def test_the_pipeline_is_measured_over_every_frame():
    pictures = noise_pictures(32, 32)
    rate, stats = pipeline_rate(loaded(), ReplayFeed("bench", pictures, 50))
    assert rate > 0
    assert stats["results"] == 50


def test_the_engine_is_measured_with_all_lanes_busy():
    model = loaded(lanes=2)
    rate, times = engine_rate(model, 0.05)
    assert rate > 0
    assert times.count == len(model.engine.batches)
    assert model.engine.open_contexts == 0


def test_an_engine_that_fails_is_no_measurement():
    def broken(_images):
        raise InferenceError("lost")

    with pytest.raises(InferenceError):
        engine_rate(loaded(broken), 0.05)


def test_live_ages_account_for_every_camera():
    report = live_ages(loaded(), noise_pictures(32, 32), cameras=2, fps=100, seconds=0.5)
    assert set(report.fps) == {"camera0", "camera1"}
    assert report.age_ms["p50"] <= report.age_ms["p99"]


def test_a_model_file_is_measured_in_both_arrangements(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make_model(tmp_path / "m.onnx", "detect", "yolo", nc=3, size=64)
    rows = bench_model(
        tmp_path / "m.onnx", seconds=0.05, size=(64, 48), fps=100, threads=2, tell=lambda _: None
    )
    assert [(r["arrangement"], r["what"]) for r in rows] == [
        (a, w) for a in ("latency", "throughput") for w in ("engine", "pipeline", "live")
    ]
