from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.weights import is_normalised, precision_of


def model(*convolutions, cast=False):
    """Convolutions one after another, with weights stored as told."""
    nodes, weights, x = [], [], "images"
    for i, kind in enumerate(convolutions):
        stored, used = f"w{i}", f"w{i}"
        dtype = {"fp16": np.float16, "int8": np.int8, "fp64": np.float64}.get(kind, np.float32)
        weights.append(numpy_helper.from_array(np.zeros((3, 3, 1, 1), dtype), stored))
        weights.append(numpy_helper.from_array(np.array(0.1, np.float32), f"s{i}"))
        if kind == "quantized float":
            nodes.append(helper.make_node("QuantizeLinear", [stored, f"s{i}"], [f"q{i}"]))
            stored = f"q{i}"
        if kind in ("int8", "quantized float"):
            used = f"d{i}"
            nodes.append(helper.make_node("DequantizeLinear", [stored, f"s{i}"], [used]))
        elif cast:
            used = f"c{i}"
            nodes.append(helper.make_node("Cast", [stored], [used], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Conv", [x, used], [f"x{i}"]))
        x = f"x{i}"
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    out = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 3, 8, 8])
    return helper.make_model(helper.make_graph(nodes, "g", [image], [out], weights))


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        (["fp32"] * 3, "fp32"),
        (["fp16"] * 3, "fp16"),
        (["int8"] * 3, "int8"),
        (["quantized float"] * 3, "int8"),
        (["int8", "int8", "fp32"], "int8"),
        (["int8", "fp32", "fp32"], "mixed"),
        (["fp16", "fp32"], "mixed"),
        (["fp64"], "mixed"),
        ([], "fp32"),
    ],
)
def test_precision_is_that_of_the_weights(kinds, precision):
    assert precision_of(model(*kinds)) == precision


def test_weights_stored_narrow_and_widened_count_as_stored():
    assert precision_of(model("fp16", "fp16", cast=True)) == "fp16"


def test_quantized_activations_alone_are_not_int8():
    m = model("fp32")
    m.graph.node.insert(0, helper.make_node("QuantizeLinear", ["images", "s0"], ["q"]))
    m.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "s0"], ["d"]))
    m.graph.node[2].input[0] = "d"
    assert precision_of(m) == "fp32"


def test_product_of_two_activations_has_no_weights():
    m = model("fp16")
    m.graph.node.append(helper.make_node("MatMul", ["x0", "x0"], ["y"]))
    assert precision_of(m) == "fp16"


def test_weights_in_constant_nodes_count():
    m = model("fp16")
    weight = m.graph.initializer[0]
    m.graph.node.insert(0, helper.make_node("Constant", [], ["w0"], value=weight))
    del m.graph.initializer[0]
    assert precision_of(m) == "fp16"


def test_integer_operations_count_as_int8():
    m = model("fp32")
    for _ in range(2):
        m.graph.node.append(helper.make_node("ConvInteger", ["x0", "w0"], ["y"]))
    assert precision_of(m) == "int8"


def test_model_without_weights_is_what_its_input_is():
    m = model()
    m.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert precision_of(m) == "fp16"


def test_weights_that_are_computed_do_not_count():
    m = model("fp16", "fp32")
    m.graph.node.insert(0, helper.make_node("Mul", ["w1", "s1"], ["w1b"]))
    m.graph.node[2].input[1] = "w1b"
    assert precision_of(m) == "fp16"


@pytest.mark.parametrize(
    ("last", "normalised"),
    [
        (["Softmax"], True),
        (["Softmax", "Identity", "Cast"], True),
        (["Sigmoid", "Squeeze"], True),
        (["Softmax", "Relu"], False),
        (["Flatten"], False),
    ],
)
def test_normalised_scores_are_recognised(last, normalised):
    nodes, x = [], "images"
    for i, kind in enumerate(last):
        nodes.append(helper.make_node(kind, [x], [f"x{i}"]))
        x = f"x{i}"
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "g", [image], [])
    assert is_normalised(helper.make_model(graph), x) == normalised
