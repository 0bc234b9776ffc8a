"""The whole road of a TensorRT engine by the commands people use, on the stand-ins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import libcuda
from tests.fakes.tensorrt.release import VERSIONS
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
CONVEYOR = ROOT / "examples" / "conveyor"


pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def _pycuda():
    libcuda.require()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    make_model(path, "detect", "yolo", nc=3, size=64)
    return path


def vigia(version: str, *arguments: str, faults: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(FAKES), str(ROOT))),
        "LD_LIBRARY_PATH": str(libcuda.build().parent),
        "VIGIA_FAKE_TENSORRT": version,
        "VIGIA_FAKE_FAULTS": faults,
    }
    command = [sys.executable, "-m", "agent", "engine", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )


def built(version: str, model: Path, cache: Path, *options: str, faults: str = "") -> dict:
    done = vigia(
        version, "build", str(model), "--backend", "tensorrt", "--cache-dir", str(cache),
        "--threads", "1", "--json", *options, faults=faults,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_fp16_is_built_proven_and_found_again(version, model, tmp_path):
    report = built(version, model, tmp_path, "--precision", "fp16")
    assert report["chosen"]["precision"] == "fp16"
    assert not report["cached"]
    assert built(version, model, tmp_path, "--precision", "fp16")["cached"]


@pytest.mark.slow
@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[2], VERSIONS[-1]])
def test_int8_of_the_example_is_built_and_passes_the_gate(version, tmp_path):
    options = ("--precision", "int8", "--calibration", str(CONVEYOR / "sample.mp4"))
    model = CONVEYOR / "conveyor-n.onnx"
    report = built(version, model, tmp_path, *options, "--images", "64")
    assert report["chosen"]["precision"] == "int8"
    (row,) = [r for r in report["rows"] if r["precision"] == "int8"]
    assert row["figures"]["matched"] >= 0.9


@pytest.mark.slow
def test_route_that_falls_is_told_and_the_next_is_taken(model, tmp_path):
    options = ("--precision", "fp16")
    report = built("10.3.0", model, tmp_path, *options, faults="build-none:strong")
    (row,) = [r for r in report["rows"] if r["precision"] == "fp16"]
    assert [bool(a["reason"]) for a in row["attempts"]] == [True, False]


@pytest.mark.slow
def test_killed_builder_is_a_reason(model, tmp_path):
    done = vigia(
        "10.3.0", "build", str(model), "--backend", "tensorrt", "--precision", "fp16",
        "--cache-dir", str(tmp_path), "--threads", "1", faults="kill",
    )  # fmt: skip
    assert done.returncode == 2
    assert "memory" in done.stderr
    assert "Traceback" not in done.stderr
