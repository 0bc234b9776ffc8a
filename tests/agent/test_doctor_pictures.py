"""What the doctor says of pictures, and of how they fit the model's input."""

from dataclasses import replace

import numpy as np
import pytest

from agent.doctor_pictures import check_fit, check_pictures, measure
from agent.enginepictures import drawn
from engines.model import Resize
from tests.engines.graphs import info

PICTURE = drawn()
DYNAMIC = info()
DYNAMIC = replace(DYNAMIC, input=replace(DYNAMIC.input, shape=(1, 3, None, None)))


def said(*pictures):
    return list(check_pictures([measure(picture) for picture in pictures]))


def flat(level):
    return np.full((90, 160, 3), level, np.uint8)


def noisy(mean, deviation):
    values = np.random.default_rng(0).normal(mean, deviation, (90, 160, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def test_an_ordinary_picture_is_in_order():
    (finding,) = said(PICTURE, PICTURE)
    assert finding.status == "ok"
    assert finding.what.startswith("2 looked at: mean ")


@pytest.mark.parametrize(
    ("pictures", "status", "words"),
    [
        ([flat(128), flat(20)], "fail", "every picture shows one colour only"),
        ([flat(128), PICTURE], "warn", "1 of 2 show one colour only"),
        ([noisy(20, 15)], "warn", "they are dark: mean 2"),
        ([noisy(235, 15)], "warn", "they are overexposed: mean 2"),
        ([noisy(120, 5)], "warn", "they have little contrast: deviation 5"),
        ([PICTURE[..., :1].repeat(3, axis=2)], "warn", "they are without colour"),
        ([np.where(PICTURE > 120, 255, PICTURE)], "warn", "of the samples are plain white"),
        ([np.where(PICTURE < 120, 0, PICTURE)], "warn", "of the samples are plain black"),
    ],
)
def test_what_is_wrong_with_pictures_is_said(pictures, status, words):
    found = [f for f in said(*pictures) if words in f.what]
    assert [f.status for f in found] == [status]
    assert found[0].fix


def fit(wide, high, model=DYNAMIC, **changes):
    facts = measure(np.zeros((high, wide, 3), np.uint8))
    return list(check_fit([facts], replace(model, **changes)))


def test_a_picture_of_the_inputs_shape_fits():
    (finding,) = fit(640, 640, width=320, height=320)
    assert (finding.status, finding.name) == ("ok", "accuracy.size")
    assert finding.what.endswith("reduced 2.00 x")


def test_enlarging_and_reducing_much_cost_accuracy():
    (finding,) = fit(160, 160, width=320, height=320)
    assert "enlarged 2.00 x, which adds no detail" in finding.what
    (finding,) = fit(1920, 1920, width=320, height=320)
    assert "less than 48 pixels across in the picture cannot be found" in finding.what
    assert [finding.status] == ["warn"]


def test_empty_border_costs_time_and_a_better_size_is_named():
    findings = {f.name: f for f in fit(1280, 720, width=640, height=640)}
    assert findings["accuracy.size"].status == "ok"
    assert "44% of the input is empty border" in findings["speed.padding"].what
    assert findings["speed.padding"].fix == "set models.<slot>.input_height: 384"
    findings = {f.name: f for f in fit(720, 1280, width=640, height=640)}
    assert findings["speed.padding"].fix == "set models.<slot>.input_width: 384"


def test_a_model_of_fixed_size_cannot_be_told_to_take_another():
    findings = {f.name: f for f in fit(1280, 720, info(), width=640, height=640)}
    assert findings["speed.padding"].fix.startswith("export the model with")


def test_the_named_size_has_less_border():
    (finding,) = fit(1280, 720, width=640, height=384)
    assert finding.status == "ok"


def test_stretching_and_cutting_are_told():
    (finding,) = fit(1280, 720, width=320, height=320, resize=Resize.STRETCH)
    assert "changes the aspect ratio by 1.78" in finding.what
    (finding,) = fit(1280, 720, width=224, height=224, resize=Resize.CENTER_CROP)
    assert "44% of the picture is cut off" in finding.what
