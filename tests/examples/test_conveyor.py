"""The demo's world, model and ground truth are what the model card says."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from engines.describe import describe
from engines.model import Layout, Task

FOLDER = Path(__file__).parents[2] / "examples" / "conveyor"
MEGABYTE = 1_000_000

ROUNDING_PX = 1
"""OpenCV 4 and 5 round warped and filled shapes differently, which moves the edge of some boxes."""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"conveyor_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scene() -> ModuleType:
    return load("scene")


def test_a_scene_follows_from_its_seed(scene):
    first, again, other = (scene.Scene(seed, 60).frame(30) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1].boxes, again[1].boxes)
    assert not np.array_equal(first[0], other[0])


def test_the_light_changes_slowly(scene):
    belt = scene.Scene(5, 300)
    means = [float(belt.frame(number)[0][: scene.BELT_TOP - 12].mean()) for number in range(300)]
    assert max(means) - min(means) > 10
    assert np.abs(np.diff(means)).max() < 1


def test_boxes_lie_in_the_picture_and_all_classes_appear(scene):
    seen = set()
    for seed in range(4):
        belt = scene.Scene(seed, 100)
        for number in range(0, 100, 20):
            _, truth = belt.frame(number)
            seen |= set(truth.class_ids.tolist())
            assert (truth.boxes[:, :2] >= 0).all()
            assert (truth.boxes[:, 2:] <= (scene.WIDTH, scene.HEIGHT)).all()
            assert (truth.boxes[:, 2:] - truth.boxes[:, :2] >= scene.MIN_SIDE_PX).all()
    assert seen == set(range(len(scene.NAMES)))


def test_the_ground_truth_is_what_the_scene_draws(scene):
    truth = json.loads((FOLDER / "sample.json").read_text())
    assert truth["names"] == list(scene.NAMES)
    assert len(truth["frames"]) == 500
    belt = scene.Scene(7, 500)
    for number in (0, 250, 499):
        _, drawn = belt.frame(number)
        rows = np.array(truth["frames"][number])
        np.testing.assert_array_equal(rows[:, 4], drawn.class_ids)
        np.testing.assert_allclose(rows[:, :4], drawn.boxes, rtol=0, atol=ROUNDING_PX)


def test_the_model_describes_itself_and_files_are_small():
    info = describe(FOLDER / "conveyor-n.onnx")
    assert (info.task, info.layout) == (Task.DETECT, Layout.YOLO)
    assert info.names == ("box", "tube", "bag", "envelope")
    assert (info.width, info.height, info.max_batch) == (320, 320, None)
    assert info.inferred == ()
    assert (FOLDER / "conveyor-n.onnx").stat().st_size <= 3 * MEGABYTE
    assert (FOLDER / "sample.mp4").stat().st_size <= 4 * MEGABYTE


def test_the_figures_of_the_model_card_hold():
    card = (FOLDER / "README.md").read_text()
    told = [float(v) for v in re.search(r"\| conveyor-n \| ([\d.]+) \| ([\d.]+)", card).groups()]
    figures = load("evaluate").evaluate(
        FOLDER / "conveyor-n.onnx", FOLDER / "sample.mp4", FOLDER / "sample.json", step=5
    )
    assert [figures.map50, figures.map50_95] == pytest.approx(told, abs=0.02)
    assert figures.map50 >= 0.8
