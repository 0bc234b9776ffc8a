"""The doctor on the conveyor model as it is, and with one fault each."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.config import ModelConfig
from agent.doctor import LIKELY, Diagnosis, examine
from agent.doctor_case import Case
from agent.doctor_host import HostFiles
from agent.doctor_plain import plain_input
from agent.enginepictures import read_pictures
from agent.errors import ConfigError
from agent.plans import PlanRequest
from engines.describe import describe
from engines.errors import ModelFileError
from engines.orttensors import PlainModel, feed
from tests.fakes.jetson import FILES, write_files
from tests.vectors import faults
from tests.vectors.models import make_model


@pytest.fixture(scope="module")
def pictures():
    return read_pictures(faults.SAMPLE, 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("agent.doctor_case.TIMED_S", 0.05)


@pytest.fixture
def diagnose(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(path: Path, *arguments, **settings) -> Diagnosis:
        config = ModelConfig(path=path, threads=1, **settings)
        request = PlanRequest("main", config, True, tmp_path / "cache")
        return examine(request, *arguments, files=HostFiles(write_files(tmp_path / "host", FILES)))

    return run


def by_name(diagnosis, topic="accuracy"):
    return {f.name: f for f in diagnosis.findings if f.name.startswith(topic)}


def test_a_right_model_is_right(diagnose, pictures):
    diagnosis = diagnose(faults.MODEL, pictures, faults.MODEL)
    assert {name: f.what for name, f in by_name(diagnosis).items() if f.status != "ok"} == {}
    assert diagnosis.verdict("accuracy").startswith("if it is less accurate: none of the ")
    assert {name for name in LIKELY if name.startswith("accuracy.")} - set(by_name(diagnosis)) == {
        "accuracy.preprocessing",
        "accuracy.description",
    }
    assert {finding.name for finding in diagnosis.findings} - set(LIKELY) == set()
    assert diagnosis.facts["host"]["power_mode"] == "MAXN_SUPER"


@pytest.mark.parametrize(
    ("fault", "seen", "cause", "words"),
    [
        (faults.divides, False, "accuracy.scaling", "the graph has a Div /pre/Div by 255"),
        (faults.wants_bytes, True, "accuracy.input", "RGB 0..255, not scaled"),
        (faults.perturbed, False, "accuracy.export", "part at Conv /down16/"),
        (faults.not_a_number, True, "accuracy.weights", "NaN or infinite weights: 1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_cause_comes_first(fault, seen, cause, words, diagnose, pictures, tmp_path):
    path = faults.faulty(fault, tmp_path / "faulty.onnx")
    diagnosis = diagnose(path, pictures if seen else (), faults.MODEL)
    first = next(f for f in diagnosis.findings if f.name.startswith("accuracy."))
    assert (first.name, first.status) == (cause, "fail")
    assert words in first.what
    assert first.what in diagnosis.verdict("accuracy")
    assert first.fix in diagnosis.verdict("accuracy")


def test_pruned_channels_are_told(diagnose, tmp_path):
    path = faults.faulty(faults.dead, tmp_path / "faulty.onnx")
    found = by_name(diagnose(path))["accuracy.weights"]
    assert "1748 of 3496 output channels" in found.what


def test_without_pictures_what_needs_them_is_left_out_and_said(diagnose):
    found = by_name(diagnose(faults.MODEL))
    assert "give --pictures" in found["accuracy.pictures"].fix
    assert "accuracy.confidence" not in found
    assert found["accuracy.serving"].status == "ok"


def recording(path, change, model=faults.MODEL):
    described = describe(model)
    (picture,) = read_pictures(faults.SAMPLE, 1)
    image = np.ascontiguousarray(change(plain_input(picture, described)), np.float32)
    loaded = onnx.load(model)
    outputs = PlainModel(loaded).run(feed(loaded, described.input.name, image))
    np.savez(path, picture=picture, **{described.input.name: image}, **outputs)
    return path


def test_a_recording_of_another_program_is_compared(diagnose, tmp_path):
    path = recording(tmp_path / "r.npz", lambda x: x)
    found = by_name(diagnose(faults.MODEL, (), path))
    assert found["accuracy.export"].status == "ok"
    assert found["accuracy.preprocessing"].status == "ok"


def test_a_recording_with_swapped_channels_is_explained(diagnose, tmp_path):
    path = recording(tmp_path / "r.npz", lambda x: x[:, ::-1])
    found = by_name(diagnose(faults.MODEL, (), path))
    # The model itself gives what was recorded for that input; the input is another.
    assert found["accuracy.export"].status == "ok"
    assert found["accuracy.preprocessing"].status == "fail"
    assert "its channels are in the other order" in found["accuracy.preprocessing"].what


@pytest.mark.parametrize(
    ("task", "layout"),
    [
        ("segment", "yolo"),
        ("pose", "yolo"),
        ("obb", "yolo"),
        ("detect", "end2end"),
        ("classify", "classes"),
    ],
)
def test_every_kind_of_model_can_be_examined(task, layout, diagnose, pictures, tmp_path):
    path = make_model(tmp_path / "m.onnx", task, layout)
    found = by_name(diagnose(path, pictures, path))
    internal = [f for f in found.values() if f.status == "fail"]
    assert {f.name for f in internal} <= {"accuracy.input", "accuracy.confidence"}
    assert found["accuracy.export"].status == "ok"


def test_a_half_precision_model_is_too_much_for_a_processor(diagnose, tmp_path):
    path = make_model(tmp_path / "m.onnx", half=True)
    found = by_name(diagnose(path), "speed")
    assert "does not compute in fp16" in found["speed.precision"].what


def test_a_batch_of_more_than_one_is_filled(diagnose, pictures, tmp_path):
    path = make_model(tmp_path / "m.onnx", batch=3)
    assert by_name(diagnose(path, pictures))["accuracy.serving"].status == "ok"


def test_a_reference_of_another_size_is_a_mistake_of_the_caller(diagnose, tmp_path):
    path = make_model(tmp_path / "m.onnx", nc=4, size=64)
    with pytest.raises(ConfigError, match="its input is 64x64"):
        diagnose(faults.MODEL, (), path)


def test_a_file_that_is_no_model_is_a_mistake_of_the_caller(diagnose, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFileError):
        diagnose(tmp_path / "m.onnx")


def test_everything_is_given_back(tmp_path, pictures):
    config = ModelConfig(path=make_model(tmp_path / "m.onnx"))
    case = Case(PlanRequest("main", config, True, tmp_path), pictures[:1])
    case.answers()
    case.close()
    case.close()


def test_the_command_prints_findings_and_a_verdict(tmp_path, pictures):
    path = faults.faulty(faults.divides, tmp_path / "faulty.onnx")
    arguments = ["engine", "doctor", str(path), "--cache-dir", str(tmp_path / "cache")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "accuracy.scaling" in done.output
    assert "» if it is less accurate, most likely: scaled twice" in done.output
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert {"verdict", "findings", "model", "host", "threads", "versions"} <= set(told)
    assert told["findings"][0]["status"] == "fail"
