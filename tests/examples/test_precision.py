"""Every form of the example's model gives its answers: judged node by node on ONNX Runtime."""

from pathlib import Path

import pytest

from agent.calibration import pictures
from agent.config import ModelConfig
from agent.gate import Gate
from agent.groundtruth import truths
from engines import ort
from engines.backend import RunOptions
from engines.describe import describe
from engines.onnxfile import read_model
from engines.qdqrules import violations
from engines.source import Source

CONVEYOR = Path(__file__).parents[2] / "examples" / "conveyor"
MODEL = CONVEYOR / "conveyor-n.onnx"
LIMITS = {"fp16": 0.002, "qdq": 0.01, "fp16_qdq": 0.01, "qdq_host": 0.01}
"""mAP50-95 that each form may lose."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stage():
    """The model's source, and a gate with its ground truth."""
    info = describe(MODEL)
    calibration, held_out = pictures(CONVEYOR / "sample.mp4", info, 96)
    source = Source(read_model(MODEL).model, info, calibration)
    reference = load(source.graph("host"))
    truth = truths(CONVEYOR / "sample.json", held_out)
    yield source, Gate(info, ModelConfig(path=MODEL), reference, held_out, truth)
    reference.close()


def load(graph):
    return ort.load(graph.SerializeToString(), "fp32", RunOptions())


def judge(gate, graph, precision):
    engine = load(graph)
    try:
        return gate.judge(engine, precision)
    finally:
        engine.close()


@pytest.mark.parametrize("form", LIMITS)
def test_form_keeps_the_accuracy(stage, form):
    source, gate = stage
    style = "host" if form == "qdq_host" else "device"
    graph = getattr(source.variants(style, source.head()), form)()
    verdict = judge(gate, graph, "fp16" if form == "fp16" else "int8")
    assert verdict.figures["map_loss"] <= LIMITS[form], verdict.reasons
    assert verdict.passed, verdict.reasons


@pytest.mark.parametrize("form", ["qdq", "fp16_qdq"])
@pytest.mark.parametrize("style", ["device", "tensor"])
def test_form_breaks_no_rule_of_tensorrt(stage, form, style):
    source, _ = stage
    assert violations(getattr(source.variants(style, source.head()), form)()) == []


def test_whole_graph_loses_its_accuracy(stage):
    source, gate = stage
    verdict = judge(gate, source.variants("host", frozenset()).qdq_host(), "int8")
    assert not verdict.passed


def test_calibration_cache_names_every_quantised_tensor(stage):
    source, _ = stage
    text = source.variants("device", source.head()).calibration_cache("8.6.1").decode()
    assert text.startswith("TRT-8601-EntropyCalibration2\n")
    assert len(text.splitlines()) > 60
