"""Every layout and task against the reference decoders, on random tensors."""

from __future__ import annotations

import numpy as np
import pytest

from agent.errors import OutputError
from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.preprocess import place
from engines.base import TensorSpec
from engines.model import Layout, ModelInfo, Resize, Task
from tests.agent.vision import reference

WIDTH, HEIGHT = 128, 96
NC = 4
PROTOTYPES = 8
F32 = np.dtype(np.float32)

KINDS = [
    (Task.DETECT, Layout.YOLO),
    (Task.DETECT, Layout.ANCHOR),
    (Task.DETECT, Layout.END2END),
    (Task.DETECT, Layout.DETR),
    (Task.SEGMENT, Layout.YOLO),
    (Task.SEGMENT, Layout.END2END),
    (Task.POSE, Layout.YOLO),
    (Task.POSE, Layout.END2END),
    (Task.OBB, Layout.YOLO),
    (Task.OBB, Layout.END2END),
]
IDS = [f"{t.value}-{layout.value}" for t, layout in KINDS]

PLACEMENTS = {
    "letterbox-wide": place(160, 90, WIDTH, HEIGHT, Resize.LETTERBOX),
    "letterbox-tall": place(61, 103, WIDTH, HEIGHT, Resize.LETTERBOX),
    "stretch": place(75, 200, WIDTH, HEIGHT, Resize.STRETCH),
    "crop": place(200, 80, WIDTH, HEIGHT, Resize.CENTER_CROP),
}

SETTINGS = {
    "default": PostprocessSettings(),
    "low": PostprocessSettings(confidence=0.05, iou=0.3),
    "everything": PostprocessSettings(confidence=0.0, iou=0.9, max_detections=10_000),
    "agnostic": PostprocessSettings(agnostic=True, iou=0.4),
    "by-class": PostprocessSettings(class_confidence={0: 0.9, 2: 0.1}),
    "filtered": PostprocessSettings(classes=frozenset({1, 3}), class_confidence={3: 0.6}),
    "few": PostprocessSettings(max_detections=3),
    "nothing-wanted": PostprocessSettings(classes=frozenset()),
}


def model(task, layout, *, nc=NC, keypoints=(3, 3), logits=False):
    extra = {Task.SEGMENT: PROTOTYPES, Task.POSE: keypoints[0] * keypoints[1], Task.OBB: 1}
    values = extra.get(task, 0)
    values += {Layout.ANCHOR: 5 + nc, Layout.END2END: 6}.get(layout, 4 + nc)
    shape = (1, values, None) if layout is Layout.YOLO else (1, None, values)
    outputs = [TensorSpec("output0", shape, F32)]
    if layout is Layout.CLASSES:
        outputs = [TensorSpec("output0", (1, nc), F32)]
    if task is Task.SEGMENT:
        outputs.append(TensorSpec("output1", (1, PROTOTYPES, HEIGHT // 4, WIDTH // 4), F32))
    return ModelInfo(
        name="test",
        digest="sha256:0",
        task=task,
        layout=layout,
        names=tuple(f"c{i}" for i in range(nc)),
        input=TensorSpec("images", (1, 3, HEIGHT, WIDTH), F32),
        outputs=tuple(outputs),
        height=HEIGHT,
        width=WIDTH,
        max_batch=1,
        resize=Resize.LETTERBOX,
        keypoint_shape=keypoints if task is Task.POSE else None,
        logits=logits,
    )


def random_outputs(info, rng, candidates=60):
    """Boxes around a few places, some beyond the picture, some turned inside out."""
    centres = rng.uniform(-10, 10, (candidates, 2)) + rng.uniform(0, 1, (8, 2))[
        rng.integers(0, 8, candidates)
    ] * [WIDTH, HEIGHT]
    sizes = rng.uniform(5, 60, (candidates, 2)) * np.where(
        rng.random((candidates, 1)) < 0.05, -1, 1
    )
    boxes = np.concatenate([centres, sizes], axis=1)
    nc = len(info.names)
    parts = [rng.random((candidates, nc)) ** 3]
    if info.layout is Layout.ANCHOR:
        parts.insert(0, rng.random((candidates, 1)))
    if info.layout is Layout.END2END:
        parts = [rng.random((candidates, 1)), rng.integers(0, nc, (candidates, 1))]
        if info.task is not Task.OBB:
            boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    if info.layout is Layout.DETR:
        boxes = boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    if info.task is Task.SEGMENT:
        parts.append(rng.normal(0, 1, (candidates, PROTOTYPES)))
    if info.task is Task.POSE:
        k, d = info.keypoint_shape
        points = rng.uniform(-20, 140, (candidates, k, d))
        points[..., 2:] = rng.random((candidates, k, d - 2))
        parts.append(points.reshape(candidates, -1))
    if info.task is Task.OBB:
        parts.append(rng.uniform(-np.pi / 4, 3 * np.pi / 4, (candidates, 1)))
    main = np.concatenate([boxes, *parts], axis=1).astype(np.float32)
    outputs = {"output0": (main.T if info.layout is Layout.YOLO else main)[None].copy()}
    if info.task is Task.SEGMENT:
        shape = (1, PROTOTYPES, HEIGHT // 4, WIDTH // 4)
        outputs["output1"] = rng.normal(0, 1, shape).astype(np.float32)
    return outputs


def compare(info, settings, outputs, placement, index=0):
    got = Decoder(info, settings)(outputs, index, placement)
    prototypes = outputs["output1"][index] if info.task is Task.SEGMENT else None
    want = reference.decode(info, settings, outputs["output0"][index], prototypes, placement)
    assert got.class_ids.tolist() == [w.class_id for w in want]
    np.testing.assert_allclose(got.scores, [w.score for w in want], rtol=1e-5)
    np.testing.assert_allclose(got.boxes, np.reshape([w.box for w in want], (-1, 4)), atol=2e-3)
    assert (got.boxes.dtype, got.scores.dtype, got.class_ids.dtype) == (F32, F32, np.int32)
    if info.task is Task.POSE:
        points = np.reshape([w.keypoints for w in want], (len(want), info.keypoint_shape[0], 3))
        np.testing.assert_allclose(got.keypoints, points, atol=2e-3)
    if info.task is Task.OBB:
        rotated = np.reshape([w.rotated for w in want], (-1, 5))
        np.testing.assert_allclose(got.rotated, rotated, atol=2e-3)
    if info.task is Task.SEGMENT:
        assert len(got.masks) == len(want)
        for mask, one in zip(got.masks, want, strict=True):
            rows, columns = mask.bits.shape
            pixels = {(mask.x + c, mask.y + r) for r in range(rows) for c in range(columns)}
            assert pixels == set(one.logits)
            for (x, y), logit in one.logits.items():
                assert abs(logit) < 1e-4 or mask.bits[y - mask.y, x - mask.x] == (logit > 0)
    return got


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_equals_the_reference_whatever_is_wanted(task, layout, settings):
    info = model(task, layout)
    outputs = random_outputs(info, np.random.default_rng(7), 60 if task is not Task.SEGMENT else 20)
    compare(info, settings, outputs, PLACEMENTS["letterbox-wide"])


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_equals_the_reference_wherever_the_frame_lies(task, layout, placement):
    info = model(task, layout)
    outputs = random_outputs(
        info, np.random.default_rng(11), 40 if task is not Task.SEGMENT else 20
    )
    found = compare(info, PostprocessSettings(), outputs, placement)
    assert len(found) > 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("task", "layout"), [k for k in KINDS if k[0] is not Task.SEGMENT])
def test_equals_the_reference_on_many_tensors(task, layout, seed):
    rng = np.random.default_rng(seed)
    info = model(task, layout, nc=int(rng.integers(1, 30)))
    settings = PostprocessSettings(confidence=float(rng.random() * 0.5), iou=float(rng.random()))
    compare(info, settings, random_outputs(info, rng, 150), PLACEMENTS["letterbox-tall"])


@pytest.mark.parametrize("layout", [Layout.YOLO, Layout.END2END])
def test_keypoints_without_visibility_count_as_visible(layout):
    info = model(Task.POSE, layout, keypoints=(4, 2))
    outputs = random_outputs(info, np.random.default_rng(3))
    found = compare(info, PostprocessSettings(), outputs, PLACEMENTS["stretch"])
    assert (found.keypoints[..., 2] == 1).all()


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_picture_of_a_batch_is_decoded_by_itself(task, layout):
    info = model(task, layout)
    rng = np.random.default_rng(5)
    pictures = [random_outputs(info, rng, 20) for _ in range(3)]
    batch = {name: np.concatenate([p[name] for p in pictures]) for name in pictures[0]}
    for index in range(3):
        compare(info, PostprocessSettings(), batch, PLACEMENTS["crop"], index)


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_float16_outputs_are_read(task, layout):
    info = model(task, layout)
    outputs = random_outputs(info, np.random.default_rng(9), 20)
    halves = {name: array.astype(np.float16) for name, array in outputs.items()}
    placement = PLACEMENTS["letterbox-wide"]
    got = Decoder(info, PostprocessSettings())(halves, 0, placement)
    wide = {name: array.astype(np.float32) for name, array in halves.items()}
    want = Decoder(info, PostprocessSettings())(wide, 0, placement)
    np.testing.assert_array_equal(got.boxes, want.boxes)
    np.testing.assert_array_equal(got.scores, want.scores)


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_detections_do_not_change_when_the_outputs_are_overwritten(task, layout):
    info = model(task, layout)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    found = Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["letterbox-wide"])
    before = [found.boxes.copy(), found.scores.copy(), found.class_ids.copy()]
    for array in outputs.values():
        array[:] = -1
    for now, then in zip((found.boxes, found.scores, found.class_ids), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_nothing_found_keeps_the_shapes(task, layout):
    info = model(task, layout)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    settings = PostprocessSettings(confidence=1.0)
    found = Decoder(info, settings)(outputs, 0, PLACEMENTS["letterbox-wide"])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert (found.masks == ()) == (task is Task.SEGMENT)
    assert (found.keypoints is not None) == (task is Task.POSE)
    assert (found.rotated is not None) == (task is Task.OBB)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_nan_or_infinite_score_is_refused(task, layout, value):
    info = model(task, layout)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    main = outputs["output0"][0]
    (main.T if layout is Layout.YOLO else main)[7, 4] = value
    with pytest.raises(OutputError, match="NaN or infinite"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_nan_or_infinity_in_a_candidate_is_refused(task, layout, value):
    info = model(task, layout)
    rng = np.random.default_rng(1)
    width = random_outputs(info, rng, 1)["output0"].size
    first = {Layout.ANCHOR: 5, Layout.END2END: 6}.get(layout, 4 + NC)
    for column in [0, 1, 2, 3, *range(first, width)]:
        outputs = random_outputs(info, rng, 20)
        main = outputs["output0"][0]
        rows = main.T if layout is Layout.YOLO else main
        rows[7, 4] = 1.0
        rows[7, column] = value
        with pytest.raises(OutputError, match="NaN or infinite"):
            Decoder(info, PostprocessSettings(confidence=0.01))(outputs, 0, PLACEMENTS["crop"])


def test_nan_that_is_not_used_does_no_harm():
    info = model(Task.DETECT, Layout.YOLO)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    outputs["output0"][0, 4:, 7] = 0.0
    outputs["output0"][0, 0, 7] = np.nan
    assert len(Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"]))


def test_nan_in_the_prototypes_is_refused():
    info = model(Task.SEGMENT, Layout.YOLO)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    outputs["output1"][:] = np.nan
    with pytest.raises(OutputError, match="NaN or infinite"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_output_of_another_size_is_refused(task, layout):
    info = model(task, layout)
    other = model(task, layout, nc=NC + 1, keypoints=(4, 3))
    outputs = random_outputs(other, np.random.default_rng(1), 20)
    if layout is Layout.END2END and task is not Task.POSE:
        outputs["output0"] = outputs["output0"][:, :, :-1]
    with pytest.raises(OutputError, match="values for each candidate"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


def test_missing_output_is_refused():
    info = model(Task.SEGMENT, Layout.YOLO)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    del outputs["output1"]
    with pytest.raises(OutputError, match="no output 'output1', only output0"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


@pytest.mark.parametrize("class_id", [-1, NC, 1e12, -1e12])
def test_class_without_a_name_is_refused(class_id):
    info = model(Task.DETECT, Layout.END2END)
    outputs = random_outputs(info, np.random.default_rng(1), 20)
    outputs["output0"][0, 3, 4:6] = 0.99, class_id
    with pytest.raises(OutputError, match="4 class names"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


@pytest.mark.parametrize("class_id", [1.97, 2.03])
def test_class_number_of_a_quantized_graph_is_rounded(class_id):
    info = model(Task.DETECT, Layout.END2END)
    outputs = {"output0": np.array([[[10, 10, 50, 50, 0.9, class_id]]], np.float32)}
    found = Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["stretch"])
    assert found.class_ids.tolist() == [2]


def test_padding_rows_of_an_end_to_end_output_are_no_objects():
    info = model(Task.DETECT, Layout.END2END)
    outputs = {"output0": np.zeros((1, 300, 6), np.float32)}
    settings = PostprocessSettings(confidence=0.0)
    assert len(Decoder(info, settings)(outputs, 0, PLACEMENTS["crop"])) == 0


def test_scores_that_rounding_lifted_above_one_are_one():
    info = model(Task.DETECT, Layout.END2END)
    outputs = {"output0": np.array([[[10, 10, 50, 50, 1.0001, 2]]], np.float32)}
    found = Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["stretch"])
    assert found.scores.tolist() == [1.0]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_classifier_equals_the_reference(settings, logits):
    info = model(Task.CLASSIFY, Layout.CLASSES, logits=logits)
    rng = np.random.default_rng(2)
    for _ in range(20):
        output = rng.normal(0, 3, (2, NC)) if logits else rng.dirichlet(np.ones(NC), 2)
        outputs = {"output0": output.astype(np.float32)}
        found = Decoder(info, settings)(outputs, 1, PLACEMENTS["crop"])
        want = reference.classify(info, settings, outputs["output0"][1])
        assert found.class_ids.tolist() == [class_id for class_id, _ in want]
        np.testing.assert_allclose(found.scores, [s for _, s in want], rtol=1e-5)
        assert found.boxes.tolist() == [[0, 0, 200, 80]] * len(want)


def test_classifier_output_that_is_not_finite_is_refused():
    info = model(Task.CLASSIFY, Layout.CLASSES)
    outputs = {"output0": np.array([[0.1, np.nan, 0.2, 0.3]], np.float32)}
    with pytest.raises(OutputError, match="NaN or infinite"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


def test_classifier_output_of_another_size_is_refused():
    info = model(Task.CLASSIFY, Layout.CLASSES)
    outputs = {"output0": np.full((1, NC + 1), 0.1, np.float32)}
    with pytest.raises(OutputError, match="4 class names"):
        Decoder(info, PostprocessSettings())(outputs, 0, PLACEMENTS["crop"])


def test_more_candidates_than_the_limit_keep_the_best():
    info = model(Task.DETECT, Layout.YOLO, nc=1)
    count = 12_000
    rng = np.random.default_rng(4)
    output = np.zeros((1, 5, count), np.float32)
    output[0, :2] = rng.uniform(20, 60, (2, count))
    output[0, 2:4] = 10
    output[0, 4] = rng.uniform(0.3, 0.9, count)
    settings = PostprocessSettings(iou=0.1)
    found = Decoder(info, settings)({"output0": output}, 0, PLACEMENTS["stretch"])
    assert found.scores[0] == output[0, 4].max()
    assert (np.diff(found.scores) <= 0).all()
