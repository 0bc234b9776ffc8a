"""Which engines are compared, and their building."""

import pytest

from agent.config import ModelConfig
from agent.enginecandidates import Candidate, Workshop, choose
from agent.errors import ConfigError
from engines.backend import RunOptions
from tests.fakes.backend import FakeBackend
from tests.vectors.models import make_model

ORT = FakeBackend("onnxruntime", ("fp32", "int8"))
VINO = FakeBackend("openvino", ("fp32", "bf16", "int8"))
MISSING = {"tensorrt": "TensorRT is not installed"}


def names(backends=("auto",), precisions=("auto",), *, calibrated=True):
    found = choose([ORT, VINO], backends, precisions, calibrated=calibrated, missing=MISSING)
    return [candidate.name for candidate in found]


def test_all_that_is_offered_is_chosen_the_reference_first():
    assert names() == [
        "fp32 on onnxruntime",
        "int8 on onnxruntime",
        "fp32 on openvino",
        "bf16 on openvino",
        "int8 on openvino",
    ]


def test_without_pictures_there_is_no_int8():
    assert not any("int8" in name for name in names(calibrated=False))


def test_the_reference_comes_along_with_what_is_asked_for():
    assert names(["openvino"], ["bf16"]) == ["fp32 on onnxruntime", "bf16 on openvino"]
    assert names(["onnxruntime"], ["fp32"]) == ["fp32 on onnxruntime"]
    assert Candidate("onnxruntime", "fp32").reference
    assert not Candidate("openvino", "fp32").reference


@pytest.mark.parametrize(
    ("backends", "precisions", "calibrated", "words"),
    [
        (["tensorrt"], ["auto"], True, "--backend tensorrt: TensorRT is not installed"),
        (["tensorflow"], ["auto"], True, "--backend tensorflow: there is no such backend"),
        (["onnxruntime"], ["bf16"], True, "--precision bf16: not computed here by onnxruntime"),
        (["auto"], ["fp8"], True, "--precision fp8: not computed here"),
        (["auto"], ["int8"], False, "--precision int8 needs pictures"),
    ],
)
def test_what_is_not_to_be_had_is_said(backends, precisions, calibrated, words):
    with pytest.raises(ConfigError, match=words):
        names(backends, precisions, calibrated=calibrated)


@pytest.fixture
def workshop(tmp_path):
    path = make_model(tmp_path / "m.onnx", nc=2, size=32)
    backends = [FakeBackend("onnxruntime", ("fp32", "int8"))]
    return Workshop(ModelConfig(path=path), backends)


def test_an_engine_is_built_for_the_way_it_is_run(workshop):
    run = RunOptions(arrangement="throughput", threads=3, batch=4)
    product, engine = workshop.build(Candidate("onnxruntime", "fp32"), run)
    assert product.route == "fake route"
    assert (engine.lanes, engine.precision) == (3, "fp32")
    (backend,) = workshop.backends
    assert backend.options[0].run == run


def test_int8_keeps_the_head_in_float(workshop):
    workshop.product(Candidate("onnxruntime", "int8"), workshop.options)
    workshop.product(Candidate("onnxruntime", "fp32"), workshop.options)
    (backend,) = workshop.backends
    assert backend.recipes[0].float_nodes == workshop.source.head() != frozenset()
    assert backend.recipes[1].float_nodes == frozenset()
