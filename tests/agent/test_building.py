"""Engines are really built, judged and kept: the example's model on ONNX Runtime."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.building import build
from agent.config import ModelConfig
from agent.models import load_model, load_plan
from agent.plans import PlanRequest, Plans
from engines.errors import BuildError, CalibrationError, PlanError

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
MODEL = CONVEYOR / "conveyor-n.onnx"
QUANTIZE = {"calibration": CONVEYOR / "sample.mp4", "images": 96}

pytestmark = pytest.mark.timeout(180)


def plans(cache: Path, **settings) -> Plans:
    chosen = {"backend": "onnxruntime", "quantize": QUANTIZE, "threads": 1, **settings}
    return Plans(PlanRequest("main", ModelConfig(path=MODEL, **chosen), True, cache))


def rows(report) -> dict:
    return {(r["backend"], r["precision"]): r for r in report.value["rows"]}


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    """An int8 engine, with what was said while it was built."""
    cache = tmp_path_factory.mktemp("cache")
    told = []
    truth = {**QUANTIZE, "truth": CONVEYOR / "sample.json"}
    wanted = plans(cache, precision="int8", quantize=truth)
    return wanted, build(wanted, told.append), told


@pytest.mark.slow
def test_int8_engine_is_built_proven_and_kept(int8):
    wanted, report, told = int8
    assert report.value["chosen"]["precision"] == "int8"
    row = rows(report)["onnxruntime", "int8"]
    assert row["figures"]["map_loss"] <= 0.01
    assert row["ms"]["p50"] > 0
    assert {"calibrating", "running the reference"} <= {p.step for p in told}
    again = build(wanted, pytest.fail)
    assert again.cached
    assert again.value == report.value
    model = load_plan(wanted, wanted.find())
    assert (model.ref.precision, model.ref.backend) == ("int8", "onnxruntime")
    model.engine.close()


@pytest.mark.slow
def test_slot_with_a_built_engine_serves_it_from_the_start(int8):
    wanted, _, _ = int8
    request = wanted.request
    model = load_model(request.slot, request.config, live=True, cache_dir=request.cache_dir)
    assert model.ref.precision == "int8"
    model.engine.close()


@pytest.mark.slow
def test_corrupted_cache_stops_nobody(int8, tmp_path):
    wanted, _, _ = int8
    request = wanted.request
    cache = tmp_path / "cache"
    subprocess.run(["cp", "-a", str(request.cache_dir), str(cache)], check=True)
    for plan in (cache / "engines").glob("*.plan"):
        content = bytearray(plan.read_bytes())
        content[len(content) // 2] ^= 1
        plan.write_bytes(content)
    model = load_model(request.slot, request.config, live=True, cache_dir=cache)
    assert model.ref.precision == "fp32"
    model.engine.close()


@pytest.mark.slow
def test_whole_graph_int8_is_caught_and_repaired(tmp_path):
    report = build(
        plans(tmp_path, precision="int8", quantize={**QUANTIZE, "keep_float": "none"}),
        lambda progress: None,
    )
    row = rows(report)["onnxruntime", "int8"]
    assert row["taken"]
    assert row["repairs"]
    assert "layers in floating point" in row["repairs"][0]


def test_without_pictures_int8_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(BuildError, match="vigia model collect"):
        build(plans(tmp_path, precision="int8", quantize={}), lambda progress: None)


def test_unusable_pictures_are_told(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CalibrationError, match="empty"):
        build(plans(tmp_path, quantize={"calibration": empty}), lambda progress: None)


def test_precision_that_the_backend_does_not_compute_in_is_refused(tmp_path):
    with pytest.raises(BuildError, match="fp16"):
        build(plans(tmp_path, precision="fp16", quantize={}), lambda progress: None)


def test_engine_that_cannot_be_kept_is_an_error(tmp_path):
    place = tmp_path / "file"
    place.write_text("not a folder")
    with pytest.raises(PlanError, match=r"pipeline\.cache_dir"):
        build(plans(place, quantize={}), lambda progress: None)


@pytest.mark.slow
def test_command_prints_the_ladder_and_finds_the_engine_again(tmp_path):
    command = [
        *(sys.executable, "-m", "agent", "engine", "build", str(MODEL), "--precision", "auto"),
        *("--backend", "onnxruntime", "--calibration", str(CONVEYOR / "sample.mp4")),
        *("--images", "64", "--threads", "1", "--cache-dir", str(tmp_path)),
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "why not" in first.stdout
    assert "built: " in first.stdout
    second = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "found in the cache: " in second.stdout
    told = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    report = json.loads(told.stdout)
    assert report["cached"]
    assert {r["precision"] for r in report["rows"]} == {"fp32", "int8"}
