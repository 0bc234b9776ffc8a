from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from engines import calibcache
from engines.describe import describe
from engines.graph import INPUT_NAME
from engines.precision import Variants
from engines.prepare import HALF_OPSET, opset_of, prepare
from engines.qdqrules import violations
from engines.quantize import HALF_SCALE_FLOOR, shared_ranges
from engines.ranges import Ranges
from engines.regions import head
from engines.source import Source
from tests.engines.networks import (
    CONVEYOR,
    Pictures,
    attention,
    by_name,
    can_be_judged,
    run,
    snr_db,
    yolo,
)
from tests.engines.test_quantize import ranges_of

KINDS = ("fp32", "qdq", "qdq_host", "fp16", "fp16_qdq")
LEAST_SNR_DB = {"fp32": 100, "fp16": 50, "qdq": 25, "qdq_host": 25, "fp16_qdq": 25}


@pytest.fixture(scope="module")
def conveyor():
    source = Source(onnx.load(CONVEYOR), describe(CONVEYOR), Pictures(2, 320), threads=2)
    source.ranges("host")
    return source


@pytest.fixture(scope="module")
def network():
    model, info = yolo()
    source = Source(model, info, Pictures(2, 64), threads=2)
    source.ranges("host")
    return source


def feed(source, style):
    bgr = next(iter(source.calibration))[None]
    if style != "tensor":
        return {INPUT_NAME: bgr}
    return {"images": (bgr[..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)}


@pytest.mark.parametrize("style", ["host", "device", "tensor"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_answers_like_the_model_it_was_made_from(conveyor, kind, style):
    can_be_judged(kind)
    reference = run(conveyor.graph("tensor"), feed(conveyor, "tensor"))[0]
    model = getattr(conveyor.variants(style, conveyor.head()), kind)()
    (found,) = run(model, feed(conveyor, style))
    assert found.dtype == np.float32
    assert snr_db(reference, found) > LEAST_SNR_DB[kind]


@pytest.mark.parametrize("style", ["device", "tensor"])
@pytest.mark.parametrize("source", ["conveyor", "network"])
@pytest.mark.parametrize("everything", [False, True])
def test_tensorrt_would_take_the_graphs(source, style, everything, request):
    source = request.getfixturevalue(source)
    variants = source.variants(style, frozenset() if everything else source.head())
    assert violations(variants.qdq()) == []
    assert violations(variants.fp16_qdq()) == []


def test_opsets_are_those_that_each_route_needs(conveyor):
    variants = conveyor.variants("device", conveyor.head())
    assert opset_of(variants.qdq()) == 17
    assert opset_of(variants.fp16()) == opset_of(variants.fp16_qdq()) == HALF_OPSET


def test_every_call_gives_a_fresh_graph(network):
    variants = network.variants("host", network.head())
    for kind in KINDS:
        first = getattr(variants, kind)()
        before = first.SerializeToString(deterministic=True)
        del first.graph.node[:]
        assert getattr(variants, kind)().SerializeToString(deterministic=True) == before


def test_the_head_is_in_floating_point_in_both_forms(network):
    heads = network.head()
    variants = network.variants("host", heads)
    for model in (variants.qdq(), variants.qdq_host()):
        rounded = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        weights = {w.name for w in model.graph.initializer if w.data_type == TensorProto.FLOAT}
        convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
        assert len(convolutions) == 64
        for conv in convolutions:
            assert (conv.input[1] in rounded) is (conv.name not in heads)
            assert (conv.input[1] in weights) is (conv.name in heads)


def test_layers_are_float16_and_decoding_is_float32(network):
    model = network.variants("device", frozenset()).fp16()
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    kinds = {n.name: types[n.output[0]] for n in model.graph.node if n.output[0] in types}
    convolutions = [n.name for n in model.graph.node if n.op_type == "Conv"]
    assert {kinds[c] for c in convolutions[:-1]} == {TensorProto.FLOAT16}
    assert kinds[convolutions[-1]] == TensorProto.FLOAT
    (softmax,) = [n.name for n in model.graph.node if n.op_type == "Softmax"]
    assert kinds[softmax] == TensorProto.FLOAT


def test_float16_scales_are_normal_numbers(network):
    # The head's class weights are so small that their scales would not be.
    variants = network.variants("device", frozenset())
    exact = [numpy_helper.to_array(w) for w in variants.qdq().graph.initializer
             if w.name.endswith("/scale")]  # fmt: skip
    assert min(a.min() for a in exact) < HALF_SCALE_FLOOR
    model = variants.fp16_qdq()
    scales = {
        n.input[1] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    arrays = [numpy_helper.to_array(w) for w in model.graph.initializer if w.name in scales]
    assert arrays
    assert {a.dtype for a in arrays} == {np.dtype(np.float16)}
    assert min(a.min() for a in arrays) >= HALF_SCALE_FLOOR


def test_an_attention_keeps_its_normalisation_and_softmax_out_of_int8_and_float16():
    model = prepare(attention())
    x = np.random.default_rng(0).normal(0, 300, (1, 5, 8)).astype("f")
    expected = run(model, x)[0]
    amax = ranges_of(model, x)
    ranges = Ranges("max", "m", "d", 1, amax, {n: -v for n, v in amax.items()})
    variants = Variants(model, head(model), lambda: ranges)
    for kind, least in (("qdq", 30), ("qdq_host", 25), ("fp16", 50), ("fp16_qdq", 30)):
        graph = getattr(variants, kind)()
        assert snr_db(expected, run(graph, x)[0]) > least
        assert by_name(graph)["squares"].input[1] == "two"


def test_the_cache_says_the_same_as_the_pairs(network):
    heads = network.head()
    variants = network.variants("device", heads)
    cache = calibcache.decode(variants.calibration_cache("8.6.1"), "8.6.1")
    shared = shared_ranges(network.graph("device"), network.ranges("device").amax, heads)
    assert cache.keys() == shared.keys()
    scales = {w.name: w for w in variants.qdq().graph.initializer}
    found = 0
    for name, amax in cache.items():
        if f"{name}/scale" in scales:
            assert amax / 127 == pytest.approx(
                numpy_helper.to_array(scales[f"{name}/scale"]), rel=1e-6
            )
            found += 1
    assert found > 50
