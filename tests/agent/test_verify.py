"""`vigia engine verify` on faults as they happen: each is caught, and named."""

from __future__ import annotations

import json

import cv2
import pytest
from typer.testing import CliRunner

from agent import verify as subject
from agent.calibration import pictures
from agent.cli import app
from agent.errors import ConfigError
from agent.plans import open_cache
from agent.verifyside import Request
from agent.verifyspec import parse
from agent.verifytext import rows
from engines.describe import describe
from engines.errors import PlanError
from engines.graph import bake
from engines.onnxfile import read_model
from engines.plan import PlanKey
from tests.vectors import faults
from tests.vectors.models import make_model
from tests.vectors.quantised import whole_graph_int8

MODEL, SAMPLE = str(faults.MODEL), faults.SAMPLE

CONFIG = f"""
mqtt: {{host: localhost}}
cameras: {{belt: {{source: {SAMPLE}}}}}
models:
  main: {{path: {MODEL}}}
  stretched: {{path: {MODEL}, resize: stretch}}
  cropped: {{path: {MODEL}, resize: center-crop}}
  normalised: {{path: {MODEL}, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
  bytes: {{path: {MODEL}, std: [0.00392157, 0.00392157, 0.00392157]}}
  renamed: {{path: {MODEL}, names: [cat, dog, bird, fish]}}
"""


FRAMES = 36
"""Pictures, of which a third is held out to judge with."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A configuration, pictures from the sample video and their ground truth."""
    place = tmp_path_factory.mktemp("verify")
    (place / "agent.yaml").write_text(CONFIG, "utf-8")
    (place / "pictures").mkdir()
    capture = cv2.VideoCapture(str(SAMPLE))
    truth = json.loads((faults.CONVEYOR / "sample.json").read_text("utf-8"))
    named = {}
    for number in range(FRAMES):
        name = f"{number:03d}.png"
        cv2.imwrite(str(place / "pictures" / name), capture.read()[1])
        named[name] = truth["frames"][number]
    capture.release()
    del truth["frames"]
    (place / "truth.json").write_text(json.dumps({**truth, "pictures": named}), "utf-8")
    return place


@pytest.fixture
def vigia(folder):
    def run(*arguments: object):
        command = ["engine", "verify", *map(str, arguments), "--pictures", str(folder / "pictures")]
        command += ["--cache-dir", str(folder / "cache"), "--images", "8"]
        result = CliRunner().invoke(app, [*command, "-c", str(folder / "agent.yaml"), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, json.loads(result.stdout)

    return run


def test_a_model_is_like_itself(vigia):
    code, report = vigia(MODEL, "slot:main")
    assert code == 0
    assert report["passed"]
    assert report["reasons"] == report["looks_like"] == []
    assert report["schema"] == "vigia.engine-verify/1"
    assert report["figures"]["pictures"] == FRAMES // 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (faults.swapped_channels, "red and blue are swapped"),
        (faults.divides, "divided by 255 twice"),
        (faults.perturbed, None),
    ],
)
def test_a_faulty_export_is_caught_and_named(vigia, folder, fault, cause):
    path = faults.faulty(fault, folder / f"{fault.__name__}.onnx")
    code, report = vigia(MODEL, path)
    assert code == 1
    assert not report["passed"]
    assert "objects are kept at IoU 0.9" in report["reasons"][0]
    if cause is None:
        assert not report["looks_like"]
    else:
        assert len(report["looks_like"]) == 1
        assert cause in report["looks_like"][0]


@pytest.mark.parametrize(
    ("slot", "cause"),
    [
        ("stretched", "fitted to its input by stretch, not by letterbox"),
        ("cropped", "fitted to its input by center-crop, not by letterbox"),
        ("normalised", "ImageNet's mean and std"),
        ("bytes", "not divided by 255"),
    ],
)
def test_a_wrong_setting_is_caught_and_named(vigia, slot, cause):
    code, report = vigia(MODEL, f"slot:{slot}")
    assert code == 1
    assert cause in report["looks_like"][0]


def test_int8_of_the_whole_graph_is_caught_and_named(vigia, folder):
    calibration, _ = pictures(folder / "pictures", describe(faults.MODEL), 8)
    path = whole_graph_int8(calibration, folder / "whole.onnx")
    code, report = vigia(MODEL, path)
    assert code == 1
    assert "every score is 0" in report["reasons"][0]
    assert "the output itself is quantised" in report["looks_like"][0]


def test_other_class_names_are_caught(vigia):
    code, report = vigia(MODEL, "slot:renamed")
    assert code == 1
    assert report["reasons"] == [
        "the class names differ: cat, dog, bird, fish instead of box, tube, bag, envelope"
    ]


def test_a_model_of_another_shape_is_caught(vigia, folder):
    other = make_model(folder / "other.onnx")
    code, report = vigia(MODEL, other)
    assert code == 1
    assert any("another model" in reason for reason in report["reasons"])


# -- plans ---------------------------------------------------------------------------------------


def put_plan(folder, path, digest: str | None = None) -> str:
    """A plan of ONNX Runtime in the cache, as a build leaves it."""
    info = describe(path)
    blob = bake(read_model(path).model, info).SerializeToString()
    key = PlanKey({"model": {"digest": digest or info.digest}, "of": str(path)})
    sidecar = {"model": info.name, "backend": "onnxruntime", "precision": "fp32"}
    assert open_cache(folder / "cache").put(key, blob, sidecar)
    return key.hex


def test_a_plan_is_like_its_model(vigia, folder):
    code, report = vigia(MODEL, put_plan(folder, faults.MODEL)[:12])
    assert code == 0
    assert report["candidate"]["model"] == describe(faults.MODEL).digest


def test_a_plan_of_another_model_is_caught(vigia, folder):
    path = faults.faulty(faults.perturbed, folder / "trained-further.onnx")
    code, report = vigia(MODEL, put_plan(folder, path)[:12])
    assert code == 1
    assert "was built of another model (sha256:" in report["reasons"][0]


def test_a_plan_that_says_it_is_of_this_model_and_is_not_is_caught(vigia, folder):
    path = faults.faulty(faults.swapped_channels, folder / "replaced.onnx")
    plan = put_plan(folder, path, describe(faults.MODEL).digest)
    code, report = vigia(MODEL, plan[:12])
    assert code == 1
    assert "red and blue are swapped" in report["looks_like"][0]


# -- recipes -------------------------------------------------------------------------------------


def test_an_engine_is_built_to_be_judged(vigia):
    code, report = vigia(MODEL, f"{MODEL}:onnxruntime:fp32")
    assert code == 0
    assert report["candidate"]["backend"] == "onnxruntime"
    assert report["candidate"]["name"].endswith(":onnxruntime:fp32")


# -- mistakes ------------------------------------------------------------------------------------


def request(folder, reference: str, candidate: str, **changes) -> Request:
    return Request(
        parse(reference),
        parse(candidate),
        folder / "pictures",
        cache_dir=folder / "cache",
        **changes,
    )


@pytest.mark.parametrize(
    ("reference", "candidate", "told"),
    [
        (MODEL, "slot:main", "give --config"),
        (MODEL, "ffffff", "0 plans in .* begins with ffffff"),
        ("eeeeee", "ffffff", "name the ONNX file as one of the two"),
    ],
)
def test_mistakes_are_told_with_advice(folder, reference, candidate, told):
    with pytest.raises(ConfigError, match=told):
        subject.verify(request(folder, reference, candidate), lambda _progress: None)


def test_a_damaged_plan_is_an_error_and_not_a_difference(folder):
    plan = put_plan(folder, faults.MODEL)
    path = folder / "cache" / "engines" / f"{plan}.plan"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(PlanError, match="cannot be opened here"):
        subject.verify(request(folder, MODEL, plan[:12]), lambda _progress: None)


# -- for people ----------------------------------------------------------------------------------


def test_the_table_has_figures_and_limits(folder):
    wanted = request(folder, MODEL, MODEL, truth=folder / "truth.json")
    table = {name: (value, limit) for name, value, limit in rows(subject.verify(wanted, print))}
    assert table["pictures"] == ("12", "")
    assert table["cosine of scores"] == ("1.00000 (equal)", ">= 0.999")
    assert table["of A's that B has, IoU 0.9"] == ("100.0%", ">= 99.0%")
    assert table["of A's that B has, IoU 0.5"] == ("100.0%", "")
    assert table["mAP50-95 of A, of B"][1] == "loss <= 0.01"


def test_what_is_shown_says_what_is_wrong_and_what_it_looks_like(folder):
    arguments = [
        "engine",
        "verify",
        MODEL,
        "slot:stretched",
        "--pictures",
        str(folder / "pictures"),
    ]
    result = CliRunner().invoke(app, [*arguments, "-c", str(folder / "agent.yaml")])
    assert result.exit_code == 1
    assert "different: " in result.stdout
    assert "looks like: frames are fitted to its input by stretch" in result.stdout
