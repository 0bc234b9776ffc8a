"""The gate with the real model, and with engines whose faults a test decides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from agent.calibration import pictures, probe_pictures
from agent.config import GateConfig, ModelConfig
from agent.gate import Gate
from agent.groundtruth import truths
from agent.vision.metrics import Labelled
from engines import ort
from engines.backend import Options, Recipe, RunOptions
from engines.base import TensorSpec
from engines.describe import describe
from engines.errors import CalibrationError, InferenceError
from engines.graph import bake
from engines.model import Layout, ModelInfo, Resize, Task
from engines.ortbackend import OrtBackend
from engines.source import Source
from tests.fakes.engine import FakeEngine
from tests.vectors import faults
from tests.vectors.quantised import whole_graph_int8

INFO = describe(faults.MODEL)
CONFIG = ModelConfig(path=faults.MODEL)


def load(model: onnx.ModelProto, info: ModelInfo = INFO):
    return ort.load(bake(model, info).SerializeToString(), "fp32", RunOptions(threads=2))


@pytest.fixture(scope="module")
def sets():
    calibration, held_out = pictures(faults.SAMPLE, INFO, 96)
    return calibration, held_out.prepared_for(INFO, 32)


@pytest.fixture(scope="module")
def gate(sets):
    reference = load(onnx.load(faults.MODEL))
    truth = truths(faults.CONVEYOR / "sample.json", sets[1])
    yield Gate(INFO, CONFIG, reference, sets[1], truth)
    reference.close()


@pytest.fixture(scope="module")
def whole_graph(sets, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "whole.onnx"
    return whole_graph_int8(list(sets[0])[::12], path)


# -- the real model ------------------------------------------------------------------------------


def test_the_reference_passes_with_nothing_lost(gate):
    verdict = gate.judge(load(onnx.load(faults.MODEL)), "fp32")
    assert verdict.passed
    assert verdict.reasons == ()
    figures = verdict.figures
    assert figures["pictures"] == 32
    assert (figures["cosine"], figures["matched"], figures["map_loss"]) == (1, 1, 0)
    assert figures["map50_95"]["reference"] > 0.75
    json.dumps(figures, allow_nan=False)


def test_int8_with_its_head_in_floating_point_passes(gate, sets):
    few = sets[0].prepared_for(INFO, 16)
    source = Source(onnx.load(faults.MODEL), INFO, few, method="max", threads=2)
    backend = OrtBackend()
    recipe = Recipe("int8", source.head())
    product = backend.build(source, recipe, Options(), lambda _progress: None)
    engine = backend.load(product.blob, INFO, Options(RunOptions(threads=2)))
    verdict = gate.judge(engine, "int8")
    assert verdict.passed, verdict.reasons
    assert verdict.figures["map_loss"] <= 0.01
    assert 0.99 < verdict.figures["cosine"] < 1


def test_int8_of_the_whole_graph_falls(gate, whole_graph):
    verdict = gate.judge(load(onnx.load(whole_graph)), "int8")
    assert not verdict.passed
    assert verdict.figures["map50_95"]["candidate"] == 0
    assert any("every score is 0" in reason for reason in verdict.reasons)
    # The boxes, which are hundreds of times as large as the scores, show nothing of it.
    assert verdict.figures["tensors"]["boxes"]["cosine"] > 0.999


@pytest.mark.parametrize(
    "fault", [faults.swapped_channels, faults.wants_bytes, faults.divides, faults.perturbed]
)
def test_a_faulty_model_falls_even_by_the_limits_of_int8(gate, fault):
    verdict = gate.judge(load(fault(onnx.load(faults.MODEL))), "int8")
    assert not verdict.passed
    assert any("objects are kept at IoU 0.9" in reason for reason in verdict.reasons)
    assert any("cosine of scores" in reason for reason in verdict.reasons)
    assert any("mAP50-95 falls from 0.8" in reason for reason in verdict.reasons)


def test_values_that_are_not_finite_fall(gate):
    verdict = gate.judge(load(faults.not_a_number(onnx.load(faults.MODEL))), "fp16")
    assert not verdict.passed
    assert "NaN or infinite" in verdict.reasons[0]


def test_synthetic_pictures_show_whether_floating_point_is_right():
    reference = load(onnx.load(faults.MODEL))
    probing = Gate(INFO, CONFIG, reference, probe_pictures(INFO))
    assert probing.judge(load(onnx.load(faults.MODEL)), "fp16").passed
    assert not probing.judge(load(faults.swapped_channels(onnx.load(faults.MODEL))), "fp16").passed


# -- made-up models ------------------------------------------------------------------------------

SIZE = 32
OBJECTS = 4


class Drawn:
    """Prepared pictures whose pixels say where the objects are; implements `Images`."""

    digest = "sha256:00"

    def __init__(self, count: int = 6) -> None:
        random = np.random.default_rng(0)
        self._pictures = random.integers(1, 255, (count, SIZE, SIZE, 3), np.uint8)

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self):
        return iter(self._pictures)


def info(task=Task.DETECT, layout=Layout.YOLO, width=8, **changes) -> ModelInfo:
    rank = (None, 6, width) if layout is not Layout.CLASSES else (None, 3)
    return replace(
        ModelInfo(
            name="fake",
            digest="sha256:00",
            task=task,
            layout=layout,
            names=("a", "b") if layout is not Layout.CLASSES else ("a", "b", "c"),
            input=TensorSpec("images", (None, 3, SIZE, SIZE), np.dtype(np.float32)),
            outputs=(TensorSpec("output0", rank, np.dtype(np.float32)),),
            height=SIZE,
            width=SIZE,
            max_batch=None,
            resize=Resize.LETTERBOX,
        ),
        **changes,
    )


def objects(images, *, keep: int = OBJECTS, scale: float = 1.0, score: float = 0.9):
    """Four objects in the corners of every picture; `keep` of them, scores scaled."""
    output = np.zeros((len(images), 6, 8), np.float32)
    places = np.float32([[8, 8], [24, 8], [8, 24], [24, 24]])[:keep]
    output[:, 0:2, :keep] = places.T
    output[:, 2:4, :keep] = 10 * scale
    output[:, 4, :keep] = score - images[:, :1, 0, 0] / 10_000
    return output


def judged(function, precision="fp16", reference=objects, **gate):
    engine = Gate(info(), ModelConfig(gate=GateConfig(**gate)), FakeEngine(reference), Drawn())
    candidate = FakeEngine(function)
    verdict = engine.judge(candidate, precision)
    assert candidate.open_contexts == 0
    return verdict


def test_a_lost_object_in_four_is_too_many():
    verdict = judged(lambda images: objects(images, keep=3))
    assert not verdict.passed
    assert verdict.reasons[0] == (
        "75.0% of 24 objects are kept at IoU 0.9, at least 99.0% are needed"
    )


def test_two_objects_may_turn_on_rounding():
    calls = iter(range(6))

    def flicker(images):
        return objects(images, keep=3 if next(calls) < 2 else 4)

    verdict = judged(flicker, min_cosine=0.9)
    assert verdict.figures["matched"] < 0.99
    assert verdict.passed, verdict.reasons


def test_objects_that_the_reference_does_not_have_are_told():
    verdict = judged(objects, reference=lambda images: objects(images, keep=3))
    assert "25.0% of 24 objects are none of the reference's" in verdict.reasons[0]


def test_boxes_of_another_size_are_not_kept_at_a_high_overlap():
    verdict = judged(lambda images: objects(images, scale=0.9), min_cosine=0)
    assert not verdict.passed
    assert verdict.figures["boxes"]["matched"] == {"0.5": 1.0, "0.75": 1.0, "0.9": 0.0}
    assert judged(lambda images: objects(images, scale=0.9), min_cosine=0, match_iou=0.8).passed


def test_scores_that_drift_are_told():
    verdict = judged(lambda images: objects(images, score=0.8))
    (reason,) = verdict.reasons
    assert reason == "scores change by 0.100 on average, at most 0.05 is allowed"


def test_pictures_that_show_nothing_cannot_prove_int8():
    def nothing(images):
        return objects(images, keep=1, score=0.2)

    verdict = judged(nothing, "int8", reference=nothing)
    assert not verdict.passed
    assert "int8 cannot be judged by fewer than 10" in verdict.reasons[0]
    verdict = judged(nothing, "fp16", reference=nothing)
    assert verdict.passed
    assert "too few to judge by" in verdict.figures["notes"][0]
    assert "matched" not in verdict.figures


def test_scores_near_zero_are_not_judged_by_their_direction():
    def nothing(images, where=slice(4)):
        output = objects(images)
        output[:, 4:] = 0
        output[:, 4, where] = 1e-5
        return output

    verdict = judged(lambda images: nothing(images, slice(4, 8)), reference=nothing)
    assert verdict.figures["tensors"]["scores"]["cosine"] == 0
    assert verdict.passed


def test_limits_depend_on_precision_and_can_be_set():
    def noisy(images):
        return objects(images) + np.linspace(0, 0.35, 8, dtype=np.float32) ** 2

    assert not judged(noisy, "fp16").passed
    assert judged(noisy, "int8").passed
    assert judged(noisy, "fp16", min_cosine=0.9).passed
    assert judged(noisy, "int8").figures["limits"]["min_cosine"] == 0.99


def test_an_engine_of_another_model_falls():
    verdict = judged(lambda images: np.zeros((len(images), 6, 9), np.float32))
    assert not verdict.passed
    assert "engine of another model" in verdict.reasons[0]


def test_an_engine_for_other_pictures_falls():
    gate = Gate(info(), ModelConfig(), FakeEngine(objects), Drawn())
    verdict = gate.judge(FakeEngine(objects, size=64), "fp32")
    assert "takes inputs of shapes" in verdict.reasons[0]


def test_an_engine_that_fails_is_an_error():
    def broken(_images):
        raise InferenceError("out of memory")

    with pytest.raises(InferenceError, match="out of memory"):
        judged(broken)


def test_only_wanted_classes_are_judged():
    def other_class(images):
        output = objects(images)
        output[:, 4:6] = output[:, 5:3:-1]
        return output

    config = ModelConfig(classes=["a"], gate=GateConfig(min_cosine=0))
    gate = Gate(info(), config, FakeEngine(objects), Drawn())
    verdict = gate.judge(FakeEngine(other_class), "fp16")
    assert verdict.figures["boxes"]["candidate"] == 0
    assert not verdict.passed


def test_answers_that_are_not_kept_are_computed_again(monkeypatch):
    def judge():
        reference = FakeEngine(objects)
        gate = Gate(info(), ModelConfig(), reference, Drawn())
        runs = len(reference.batches)
        figures = gate.judge(FakeEngine(lambda i: objects(i, keep=3)), "fp16").figures
        assert reference.open_contexts == 0
        return len(reference.batches) - runs, figures

    kept = judge()
    monkeypatch.setattr("agent.gate.KEPT_BYTES", 2 * 6 * 8 * 4)
    again = judge()
    assert (kept[0], again[0]) == (0, 4)
    assert kept[1] == again[1]


def test_a_fixed_batch_is_run_as_it_is():
    fixed = info(max_batch=4)
    reference, candidate = FakeEngine(objects), FakeEngine(objects)
    assert Gate(fixed, ModelConfig(), reference, Drawn()).judge(candidate, "fp16").passed
    assert set(reference.batches) == set(candidate.batches) == {4}


# -- classifiers ---------------------------------------------------------------------------------


def classes(images, *, wrong: int = 0):
    """The class of a picture follows from its first pixel; the first `wrong` pixels lie."""
    best = images[:, 0, 0, 0] % 3
    best = np.where(images[:, 0, 0, 0] < wrong, (best + 1) % 3, best)
    return np.eye(3, dtype=np.float32)[best] * 0.8 + 0.05


def classified(function, reference=classes, **changes):
    described = info(Task.CLASSIFY, Layout.CLASSES, **changes)
    gate = Gate(described, ModelConfig(), FakeEngine(reference), Drawn(100))
    return gate.judge(FakeEngine(function), "int8")


def test_a_classifier_that_answers_the_same_passes():
    verdict = classified(classes)
    assert verdict.passed
    assert verdict.figures["top1"] == 1
    assert "boxes" not in verdict.figures


def test_a_classifier_that_answers_differently_falls():
    verdict = classified(lambda images: classes(images, wrong=40))
    assert not verdict.passed
    assert "the best class is the same in 8" in verdict.reasons[0]


def test_a_tie_between_two_classes_is_no_difference():
    tie = np.float32([0.45, 0.44, 0.11])

    def first(images):
        return np.repeat(tie[None], len(images), 0)

    def second(images):
        return np.repeat(tie[None, [1, 0, 2]], len(images), 0)

    assert classified(second, first).figures["top1"] == 1
    # As logits, the two lie as near to each other; ten times as far they are no tie.
    assert classified(second, first, logits=True).figures["top1"] == 1
    assert (
        classified(lambda i: second(i) * 100, lambda i: first(i) * 100, logits=True).figures["top1"]
        == 0
    )


# -- ground truth --------------------------------------------------------------------------------


def corner_truth(count: int) -> list[Labelled]:
    boxes = np.float32([[3, 3, 13, 13], [19, 3, 29, 13], [3, 19, 13, 29], [19, 19, 29, 29]])
    return [Labelled(boxes, np.zeros(4, np.int32), np.ones(4, np.float32))] * count


def test_lost_precision_is_told_where_the_truth_is_known():
    config = ModelConfig(gate=GateConfig(min_cosine=0, min_matched=0))
    gate = Gate(info(), config, FakeEngine(objects), Drawn(), corner_truth(6))
    verdict = gate.judge(FakeEngine(lambda images: objects(images, keep=2)), "int8")
    assert verdict.figures["map50_95"] == {"reference": 1.0, "candidate": 0.505}
    assert verdict.figures["map_loss"] == 0.495
    assert verdict.reasons == (
        "mAP50-95 falls from 1.0000 to 0.5050, by 0.4950; at most 0.01 is allowed",
    )


def test_truth_of_another_number_of_pictures_is_refused():
    with pytest.raises(CalibrationError, match="given for 5 pictures, but there are 6"):
        Gate(info(), ModelConfig(), FakeEngine(objects), Drawn(), corner_truth(5))


def test_a_gate_needs_pictures():
    with pytest.raises(CalibrationError, match="without pictures"):
        Gate(info(), ModelConfig(), FakeEngine(objects), Drawn(0))


def test_truth_of_upright_boxes_is_not_used_for_classes():
    described = info(Task.CLASSIFY, Layout.CLASSES)
    gate = Gate(described, ModelConfig(), FakeEngine(classes), Drawn(), corner_truth(6))
    verdict = gate.judge(FakeEngine(classes), "int8")
    assert "map_loss" not in verdict.figures
    assert "not used for this task" in verdict.figures["notes"][0]
