from __future__ import annotations

import numpy as np
import pytest

from agent.vision.parts import split
from engines.base import TensorSpec
from engines.model import Layout, ModelInfo, Resize, Task

RANDOM = np.random.default_rng(0)


def info(layout: Layout, task: Task = Task.DETECT, outputs=(("output0", 3),)) -> ModelInfo:
    return ModelInfo(
        name="m",
        digest="sha256:00",
        task=task,
        layout=layout,
        names=("a", "b"),
        input=TensorSpec("images", (1, 3, 32, 32), np.dtype(np.float32)),
        outputs=tuple(
            TensorSpec(name, (None,) * rank, np.dtype(np.float32)) for name, rank in outputs
        ),
        height=32,
        width=32,
        max_batch=None,
        resize=Resize.LETTERBOX,
    )


def test_scores_are_apart_from_boxes_in_the_yolo_layout():
    output = RANDOM.random((2, 6, 8), np.float32)
    parts = split(info(Layout.YOLO), {"output0": output}, 1)
    assert parts.keys() == {"boxes", "scores"}
    np.testing.assert_array_equal(parts["boxes"], output[1, :4])
    np.testing.assert_array_equal(parts["scores"], output[1, 4:])


def test_coefficients_and_prototypes_are_parts():
    outputs = {
        "output0": RANDOM.random((1, 9, 8), np.float32),
        "protos": RANDOM.random((1, 3, 4, 4), np.float32),
    }
    described = info(Layout.YOLO, Task.SEGMENT, (("output0", 3), ("protos", 4)))
    parts = split(described, outputs, 0)
    assert parts.keys() == {"boxes", "scores", "extra", "protos"}
    assert parts["extra"].shape == (3, 8)


def test_class_scores_of_the_anchor_layout_count_with_their_objectness():
    output = np.zeros((1, 2, 7), np.float32)
    output[0, 0, 4:] = (0.5, 0.8, 0.2)
    output[0, 1, 4:] = (0.0, 0.9, 0.9)
    scores = split(info(Layout.ANCHOR), {"output0": output}, 0)["scores"]
    np.testing.assert_allclose(scores, [[0.4, 0.1], [0, 0]])


@pytest.mark.parametrize("layout", [Layout.END2END, Layout.DETR])
def test_another_order_of_sorted_candidates_is_no_difference(layout):
    output = RANDOM.random((1, 9, 6), np.float32)
    shuffled = output[:, RANDOM.permutation(9)]
    before, after = (split(info(layout), {"output0": o}, 0) for o in (output, shuffled))
    assert before.keys() == {"scores"}
    np.testing.assert_array_equal(before["scores"], after["scores"])
    assert before["scores"][0] == before["scores"].max()


def test_a_classifier_has_scores_only():
    described = info(Layout.CLASSES, Task.CLASSIFY, (("output0", 2),))
    parts = split(described, {"output0": np.float32([[0.1, 0.9]])}, 0)
    np.testing.assert_array_equal(parts["scores"], np.float32([0.1, 0.9]))


def test_parts_do_not_change_with_the_engines_buffers():
    output = RANDOM.random((1, 6, 8), np.float32)
    parts = split(info(Layout.YOLO), {"output0": output}, 0)
    before = parts["scores"].copy()
    output[:] = 0
    np.testing.assert_array_equal(parts["scores"], before)
