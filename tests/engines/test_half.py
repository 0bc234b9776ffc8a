"""Typed float16 graphs: right answers, the caller's types, float32 where it must be."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.describe import describe_model
from engines.errors import UnsupportedModelError
from engines.graph import bake
from engines.half import HALF_MAX, MIN_SCALE, to_half
from engines.onnxfile import read_model
from engines.prepare import prepare
from engines.regions import sensitive, tail

CONVEYOR = Path(__file__).parents[2] / "examples" / "conveyor" / "conveyor-n.onnx"
RNG = np.random.default_rng(0)


def raw(nodes, arrays, outputs=("y",)):
    value = helper.make_tensor_value_info
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", TensorProto.FLOAT, [1, 4, 8, 8])],
            [value(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(a, name) for name, a in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return onnx.shape_inference.infer_shapes(proto)


def model(nodes, arrays, outputs=("y",)):
    return prepare(raw(nodes, arrays, outputs))


def run(proto, x):
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: x})


def agree(proto, keep=(), tolerance=2e-3):
    x = RNG.normal(size=[d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim])
    half = to_half(proto, keep)
    expected, found = run(proto, x.astype("f")), run(half, x.astype("f"))
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())
    return half


def conv(**changes):
    weights = RNG.normal(size=(5, 4, 3, 3)).astype("f") * 0.1
    arrays = {"w": weights, "b": RNG.normal(size=5).astype("f"), **changes}
    return [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv")], arrays


def kinds(proto):
    return {w.name: w.data_type for w in proto.graph.initializer}


def test_weights_are_half_and_inputs_and_outputs_are_not():
    nodes, arrays = conv()
    half = agree(model([*nodes, helper.make_node("Relu", ["c"], ["y"])], arrays))
    assert set(kinds(half).values()) == {TensorProto.FLOAT16}
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_output_that_other_nodes_take_too_is_given_as_float32():
    nodes, arrays = conv()
    tail_nodes = [
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
        helper.make_node("Exp", ["y"], ["z"], name="exp"),
        helper.make_node("Neg", ["y"], ["n"], name="neg"),
    ]
    agree(model([*nodes, *tail_nodes], arrays, outputs=("y", "z", "n")), {"exp"}, 5e-3)


def test_nodes_that_are_kept_compute_in_float32():
    nodes, arrays = conv()
    arrays["big"] = np.array([1000.0], "f")
    tail_nodes = [
        helper.make_node("Mul", ["c", "big"], ["m"], name="mul"),
        helper.make_node("Pow", ["m", "two"], ["y"], name="pow"),
    ]
    arrays["two"] = np.array([2.0], "f")
    agree(model([*nodes, *tail_nodes], arrays), {"mul", "pow"}, 5e-3)


def test_weight_beyond_the_range_stays_float32():
    nodes, arrays = conv(b=np.array([HALF_MAX * 4] * 5, "f"))
    proto = model([*nodes, helper.make_node("Neg", ["c"], ["y"], name="neg")], arrays)
    half = agree(proto, {"neg"})
    assert kinds(half) == {"w": TensorProto.FLOAT, "b": TensorProto.FLOAT}


def test_resize_keeps_its_scales_in_float32():
    nodes, arrays = conv(scales=np.array([1, 1, 2, 2], "f"))
    up = helper.make_node("Resize", ["c", "", "scales"], ["y"], mode="nearest", name="up")
    half = agree(model([*nodes, up], arrays))
    assert kinds(half)["scales"] == TensorProto.FLOAT


@pytest.mark.parametrize("kind", ["TopK", "CumSum"])
def test_operations_without_half_form_stay_float32(kind):
    nodes, arrays = conv()
    if kind == "TopK":
        arrays["k"] = np.array([2])
        last = helper.make_node("TopK", ["c", "k"], ["y", "indices"], axis=1, name="last")
    else:
        arrays["axis"] = np.array(1)
        last = helper.make_node("CumSum", ["c", "axis"], ["y"], name="last")
    half = agree(model([*nodes, last], arrays))
    producer = {o: n for n in half.graph.node for o in n.output}
    (node,) = [n for n in half.graph.node if n.name == "last"]
    assert producer[node.input[0]].op_type == "Cast"


def test_constants_and_casts_inside_the_graph_follow():
    nodes, arrays = conv(i=np.arange(5).reshape(1, 5, 1, 1))
    tail_nodes = [
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["c", "f"], ["y"]),
    ]
    agree(model([*nodes, *tail_nodes], arrays))


def test_tensor_wanted_in_both_types_is_converted_once():
    nodes, arrays = conv()
    users = [helper.make_node("Exp", ["c"], [f"e{n}"], name=f"e{n}") for n in range(3)]
    total = helper.make_node("Sum", ["e0", "e1", "e2", "c"], ["y"], name="total")
    half = agree(model([*nodes, *users, total], arrays), {"e0", "e1", "e2"}, 5e-3)
    assert sum("/full" in n.output[0] for n in half.graph.node) == 1


def quantised(scale_x, scale_w, *, stored):
    """x -> Q -> DQ -> Conv with int8 weights, stored as int8 or quantised in the graph."""
    make = helper.make_node
    weights = (RNG.normal(size=(5, 4, 1, 1)) * scale_w * 40).astype("f")
    scales = np.full(5, scale_w, "f")
    arrays = {
        "sx": np.array(scale_x, "f"),
        "zx": np.array(0, np.int8),
        "sw": scales,
        "zw": np.zeros(5, np.int8),
    }
    nodes = [
        make("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        make("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        make("DequantizeLinear", ["wq", "sw", "zw"], ["wd"], axis=0),
        make("Conv", ["xd", "wd"], ["y"]),
    ]
    if stored:
        arrays["wq"] = np.clip(np.rint(weights / scale_w), -127, 127).astype(np.int8)
    else:
        arrays["w"] = weights
        nodes.insert(2, make("QuantizeLinear", ["w", "sw", "zw"], ["wq"], axis=0))
    return raw(nodes, arrays)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("scale_w", [0.01, MIN_SCALE / 3])
def test_scales_are_half_and_never_subnormal(stored, scale_w):
    proto = quantised(0.03, scale_w, stored=stored)
    # A float16 input may round to the next int8 step.
    half = agree(proto, tolerance=0.05)
    scales = [
        numpy_helper.to_array(w)
        for w in half.graph.initializer
        if w.data_type == TensorProto.FLOAT16
    ]
    assert scales
    assert min(s[s > 0].min() for s in scales if s.ndim < 2) >= MIN_SCALE


def test_control_flow_is_refused():
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body, name="fork")
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array(True), "yes")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    with pytest.raises(UnsupportedModelError, match="'fork' is control flow"):
        to_half(proto, ())


def test_example_keeps_its_answers():
    file = read_model(CONVEYOR)
    info = describe_model(file)
    prepared = prepare(file.model)
    keep = tail(prepared) | sensitive(prepared)
    baked = bake(prepared, info, "device")
    frame = np.clip(RNG.normal(120, 40, (1, info.height, info.width, 3)), 0, 255).astype(np.uint8)
    (expected,), (found,) = run(baked, frame), run(to_half(baked, keep), frame)
    assert np.abs(found[:, :4] - expected[:, :4]).max() < 0.5
    assert np.abs(found[:, 4:] - expected[:, 4:]).max() < 0.01
