"""`vigia engine verify` as people use it: what it must catch, and what it calls it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import onnx
import pytest

from tests.vectors.faults import divides, faulty, gets_bytes, swapped_channels
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
MODEL = CONVEYOR / "conveyor-n.onnx"
PICTURES = 32
"""Spread over the example's video: enough to see a fault, and few to wait for."""


pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def verify(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, dict, str]]:
    """Runs the command; gives its exit code, what it printed as JSON, and its errors."""
    folder = tmp_path_factory.mktemp("pictures")
    video = cv2.VideoCapture(str(CONVEYOR / "sample.mp4"))
    step = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // PICTURES
    for number in range(PICTURES * step):
        read, picture = video.read()
        assert read
        if number % step == 0:
            cv2.imwrite(str(folder / f"{number:04}.png"), picture)

    def run(first: str, second: str, *options: str) -> tuple[int, dict, str]:
        command = [sys.executable, "-m", "agent", "engine", "verify", first, second]
        done = subprocess.run(
            [*command, "--pictures", str(folder), "--json", *options],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    return run


def test_model_answers_as_itself(verify):
    code, found, _ = verify(str(MODEL), f"{MODEL}:onnxruntime:fp32")
    assert code == 0
    assert found["passed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (swapped_channels, "red and blue are swapped"),
        (gets_bytes, "not divided by 255"),
        (divides, "divided by 255 twice"),
    ],
)
def test_fault_is_caught_and_named(verify, tmp_path, fault, cause):
    code, found, _ = verify(str(MODEL), str(faulty(fault, tmp_path / "faulty.onnx")))
    assert code == 1
    assert not found["passed"]
    assert cause in json.dumps(found, indent=1)


@pytest.mark.slow
def test_another_letterbox_is_caught(verify, tmp_path):
    config = tmp_path / "agent.yaml"
    config.write_text(
        "mqtt: {host: localhost}\n"
        "cameras: {belt: {source: sample.mp4}}\n"
        f"models: {{main: {{path: {MODEL}, resize: stretch}}}}\n"
    )
    code, found, error = verify(str(MODEL), "slot:main", "--config", str(config))
    assert code == 1, error
    assert "stretch" in json.dumps(found)


@pytest.mark.slow
def test_int8_of_the_whole_graph_is_caught(verify):
    code, found, error = verify(
        str(MODEL), f"{MODEL}:onnxruntime:int8", "--keep-float", "none", "--images", "16"
    )
    assert code == 1, error
    assert found["reasons"]


def test_plan_of_another_model_is_caught(verify, tmp_path):
    other = tmp_path / "other.onnx"
    make_model(other, "detect", "yolo", nc=3, size=64)
    cache = tmp_path / "cache"
    built = subprocess.run(
        [sys.executable, "-m", "agent", "engine", "build", str(other), "--backend", "onnxruntime",
         "--precision", "fp32", "--cache-dir", str(cache), "--json"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    plan = json.loads(built.stdout)["plan"]
    code, found, error = verify(str(MODEL), plan[:12], "--cache-dir", str(cache))
    assert code in (1, 2)
    assert "model" in json.dumps(found) + error
    assert "Traceback" not in error


def test_mistakes_are_told(verify, tmp_path):
    nothing = tmp_path / "nothing.onnx"
    code, _, error = verify(str(MODEL), str(nothing))
    assert code == 2
    assert "no such file" in error
    onnx.save(onnx.load(MODEL), tmp_path / "same.onnx")
    code, _, error = verify(str(MODEL), f"{MODEL}:onnxruntime:fp99")
    assert code == 2
    assert "fp99" in error
