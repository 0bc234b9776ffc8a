from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.openvinograph import ZERO_NAME, unsigned
from tests.engines.test_ortproof import graph

make = helper.make_node


def pairs(**changes: np.ndarray) -> onnx.ModelProto:
    """x -> Q/DQ -> convolution with a Q/DQ weight -> Q/DQ -> y, all signed and symmetric."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "w": rng.standard_normal((4, 4, 1, 1)).astype(np.float32),
        "ws": np.full(4, 0.02, np.float32),
        "wz": np.zeros(4, np.int8),
        "s": np.array(0.02, np.float32),
        "z": np.array(0, np.int8),
        **changes,
    }
    nodes = [
        make("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=0),
        make("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=0),
        make("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        make("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        make("Conv", ["xd", "wd"], ["c"], kernel_shape=[1, 1]),
        make("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        make("DequantizeLinear", ["cq", "s", "z"], ["y"]),
    ]
    return graph(nodes, weights)


def answer(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    # Node by node, as the graph says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    x = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32) * 2
    return session.run(None, {"x": x})[0]


def zeros(model: onnx.ModelProto) -> dict[str, str]:
    """Zero point by quantised tensor."""
    return {n.output[0]: n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def test_shifted_values_are_the_same_values():
    before = answer(pairs())
    after = answer(unsigned(pairs()))
    assert before.any()
    np.testing.assert_array_equal(before, after)


def test_activations_are_shifted_and_weights_are_not():
    model = unsigned(pairs())
    onnx.checker.check_model(model, full_check=True)
    assert zeros(model) == {"wq": "wz", "xq": ZERO_NAME, "cq": ZERO_NAME}
    (zero,) = (w for w in model.graph.initializer if w.name == ZERO_NAME)
    assert (zero.data_type, numpy_helper.to_array(zero)) == (TensorProto.UINT8, 128)


def test_recorded_types_of_shifted_tensors_are_forgotten():
    model = onnx.shape_inference.infer_shapes(pairs())
    assert "xq" in {v.name for v in model.graph.value_info}
    unsigned(model)
    assert not {"xq", "cq"} & {v.name for v in model.graph.value_info}
    assert "xd" in {v.name for v in model.graph.value_info}


@pytest.mark.parametrize(
    "changes",
    [
        {"z": np.array(3, np.int8)},
        {"z": np.array(128, np.uint8)},
        {"z": np.array([0], np.int8), "s": np.array([0.02], np.float32)},
    ],
)
def test_other_pairs_are_left(changes):
    model = unsigned(pairs(**changes))
    assert zeros(model) == {"wq": "wz", "xq": "z", "cq": "z"}
    assert ZERO_NAME not in {w.name for w in model.graph.initializer}


def test_a_value_that_others_use_is_left():
    model = pairs()
    model.graph.output.append(helper.make_tensor_value_info("xq", TensorProto.INT8, [1, 4, 8, 8]))
    assert zeros(unsigned(model))["xq"] == "z"
    model = pairs()
    model.graph.node.append(make("Cast", ["cq"], ["u"], to=TensorProto.INT32))
    assert zeros(unsigned(model)) == {"wq": "wz", "xq": ZERO_NAME, "cq": "z"}


def test_a_pair_without_a_zero_point_is_left():
    model = pairs()
    for node in model.graph.node:
        if node.output[0] in {"xq", "xd"}:
            del node.input[2]
    before = model.SerializeToString()
    assert zeros_or_none(unsigned(model)) == {"wq": "wz", "xq": None, "cq": ZERO_NAME}
    assert before != model.SerializeToString()


def zeros_or_none(model: onnx.ModelProto) -> dict[str, str | None]:
    return {
        n.output[0]: n.input[2] if len(n.input) > 2 else None
        for n in model.graph.node
        if n.op_type == "QuantizeLinear"
    }


def test_a_graph_without_pairs_is_not_changed():
    model = graph([make("Relu", ["x"], ["y"])], {})
    before = model.SerializeToString()
    assert unsigned(model).SerializeToString() == before
