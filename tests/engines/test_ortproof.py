from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import ort
from engines.backend import RunOptions
from engines.ortproof import computed


def graph(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantised(*, activations: bool) -> onnx.ModelProto:
    """A convolution with an int8 weight; its input is quantised too, or not."""
    make = helper.make_node
    weights: dict[str, np.ndarray] = {
        "w": np.ones((4, 4, 3, 3), np.int8),
        "ws": np.float32([0.1]).reshape(()),
        "wz": np.int8([0]).reshape(()),
        "s": np.float32([0.02]).reshape(()),
        "z": np.uint8([128]).reshape(()),
    }
    nodes = [make("DequantizeLinear", ["w", "ws", "wz"], ["wf"])]
    source, target = "x", "y"
    if activations:
        nodes += [
            make("QuantizeLinear", ["x", "s", "z"], ["q"]),
            make("DequantizeLinear", ["q", "s", "z"], ["d"]),
        ]
        source, target = "d", "c"
    nodes.append(make("Conv", [source, "wf"], [target], kernel_shape=[3, 3], pads=[1] * 4))
    if activations:
        nodes += [
            make("QuantizeLinear", ["c", "s", "z"], ["cq"]),
            make("DequantizeLinear", ["cq", "s", "z"], ["y"]),
        ]
    return graph(nodes, weights)


def test_a_graph_whose_quantised_operations_were_fused_is_int8():
    engine = ort.load(quantised(activations=True).SerializeToString(), "?", RunOptions())
    assert engine.precision == "int8"


def test_int8_weights_alone_make_no_int8_engine():
    model = quantised(activations=False)
    assert ort.load(model.SerializeToString(), "int8", RunOptions()).precision == "fp32"


def test_quantisation_that_is_not_fused_is_floating_point():
    assert computed(quantised(activations=True)) == "fp32"


def convs(*kinds: str) -> onnx.ModelProto:
    nodes = []
    for number, kind in enumerate(kinds):
        if kind == "int8":
            nodes.append(helper.make_node("QLinearConv", ["x"] * 8, [f"y{number}"]))
        elif kind == "activations":
            nodes.append(helper.make_node("MatMul", ["x", "x"], [f"y{number}"]))
        elif kind == "cast":
            nodes.append(helper.make_node("Cast", ["fp16"], ["c"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Conv", ["x", "c"], [f"y{number}"]))
        else:
            nodes.append(helper.make_node("Conv", ["x", kind], [f"y{number}"]))
    return graph(nodes, {"fp32": np.ones(1, np.float32), "fp16": np.ones(1, np.float16)})


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        (("fp32", "fp32"), "fp32"),
        (("fp16",), "fp16"),
        (("fp16", "fp32"), "mixed"),
        (("int8", "int8", "fp32"), "int8"),
        (("int8", "fp32"), "mixed"),
        (("int8", "fp32", "fp32"), "mixed"),
        (("cast", "fp32"), "fp32"),
        (("activations", "fp32"), "fp32"),
        (("activations",), ""),
        ((), ""),
    ],
)
def test_the_operations_with_weights_decide(kinds, precision):
    assert computed(convs(*kinds)) == precision
