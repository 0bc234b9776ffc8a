"""The model beside its reference: recordings, explanations of another program's input."""

from dataclasses import replace

import numpy as np
import pytest

from agent.doctor_plain import plain_input
from agent.doctor_reference import (
    check_outputs,
    check_recorded_input,
    compare_outputs,
    explain_input,
    parting,
    read_recording,
)
from agent.enginepictures import drawn
from agent.errors import ConfigError
from engines.base import TensorSpec
from engines.model import Resize
from engines.orttensors import Difference
from tests.engines.graphs import info

PICTURE = drawn()
MODEL = replace(
    info(),
    width=64,
    height=64,
    names=("a", "b"),
    outputs=(TensorSpec("output0", (1, 6, 10), np.dtype(np.float32)),),
)


def outputs(noise=0.0):
    random = np.random.default_rng(0)
    values = random.random((1, 6, 10), np.float32) * 60
    values[:, 4:] /= 60
    return {"output0": values + noise * random.standard_normal(values.shape).astype(np.float32)}


def judged(found, precision="fp32"):
    figures = compare_outputs(MODEL, [(outputs(), found)])
    (finding,) = check_outputs("accuracy.export", "the model", figures, precision, "mend it")
    return finding


def test_equal_outputs_agree():
    finding = judged(outputs())
    assert finding.status == "ok"
    assert "boxes: cosine 1.00000, largest difference 0" in finding.what


def test_scores_are_judged_apart_from_boxes_which_dwarf_them():
    found = outputs()
    found["output0"][:, 4:] = 0
    finding = judged(found)
    assert finding.status == "fail"
    assert "scores: cosine 0.00000" in finding.what


def test_int8_may_differ_more_than_a_float_precision():
    found = outputs(noise=0.06)
    assert judged(found, "fp32").status == "fail"
    assert judged(found, "int8").status == "ok"


def test_values_that_are_not_finite_are_told_first():
    found = outputs()
    found["output0"][0, 5, 3] = np.nan
    finding = judged(found)
    assert (finding.status, finding.what) == (
        "fail",
        "the model: scores has values that are not finite",
    )


def test_a_reference_of_another_model_is_a_mistake_of_the_caller():
    with pytest.raises(ConfigError, match="are not this model's"):
        compare_outputs(MODEL, [(outputs(), {"output0": np.zeros((1, 6, 11), np.float32)})])
    with pytest.raises(ConfigError, match="are not this model's"):
        compare_outputs(MODEL, [({"other": np.zeros((1, 6, 10))}, outputs())])


def test_where_two_models_part_is_added_to_what_is_said():
    assert parting(None) == ""
    text = parting(Difference("/layer3/Conv", "Conv", 0.25, 8))
    assert "part at Conv /layer3/Conv, by 0.25" in text
    assert "after 7 tensors" in text


@pytest.fixture
def recording(tmp_path):
    def write(**changes):
        arrays = {"images": plain_input(PICTURE, MODEL), **outputs(), "picture": PICTURE, **changes}
        path = tmp_path / "r.npz"
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    return write


def test_a_recording_is_read(recording):
    found = read_recording(recording(), MODEL)
    assert found.image.shape == (1, 3, 64, 64)
    assert found.picture is not None
    assert read_recording(recording(picture=None), MODEL).picture is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "not images"),
        ({"output0": None}, "not output0"),
        ({"images": np.zeros((1, 3, 32, 32))}, "has shape"),
        ({"picture": np.zeros((8, 8, 3))}, "picture must be uint8"),
        ({"images": np.array([{}], object)}, "cannot be read as .npz"),
    ],
)
def test_a_recording_that_is_none_is_a_mistake_of_the_caller(recording, changes, words):
    with pytest.raises(ConfigError, match=words):
        read_recording(recording(**changes), MODEL)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04cut off"])
def test_a_file_that_is_no_recording_is_a_mistake_of_the_caller(tmp_path, content):
    path = tmp_path / "r.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be read as \.npz"):
        read_recording(path, MODEL)


OURS = plain_input(PICTURE, MODEL)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (OURS, ""),
        (OURS + np.float32(0.8 / 255), ""),
        (OURS[:, ::-1], "its channels are in the other order"),
        (OURS * 255, "it is not scaled: 0..255"),
        (OURS[:, ::-1] * 255, "it is BGR and not scaled"),
        (OURS / 255, "it is divided by 255 twice"),
        (OURS * 2 - 1, "it is -1..1"),
        (plain_input(PICTURE, replace(MODEL, resize=Resize.STRETCH)), "in another way: stretch"),
        (
            plain_input(PICTURE, replace(MODEL, resize=Resize.CENTER_CROP))[:, ::-1],
            "center-crop instead of letterbox, and BGR",
        ),
    ],
)
def test_what_another_program_did_to_a_picture_is_explained(theirs, words):
    apart, explanation = explain_input(PICTURE, theirs, MODEL)
    assert words in explanation
    assert bool(explanation) == bool(words)
    (finding,) = check_recorded_input(apart, explanation)
    assert finding.status == ("fail" if words else "ok")


def test_a_difference_that_nothing_explains_is_told_as_that():
    theirs = np.random.default_rng(0).random(OURS.shape, np.float32)
    apart, explanation = explain_input(PICTURE, theirs, MODEL)
    assert explanation == ""
    (finding,) = check_recorded_input(apart, explanation)
    assert finding.status == "warn"
    assert "neither scale, channels nor fit explain it" in finding.what
