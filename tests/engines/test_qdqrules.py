"""What TensorRT's parser would refuse is told before, one broken graph a rule."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.qdqrules import violations

F = np.float32
ZERO = np.int8(0)
ZEROS = np.zeros(4, np.int8)


def graph(
    *,
    x_scale=0.1,
    x_zero=ZERO,
    w_scale=(0.1,) * 4,
    w_zero=ZEROS,
    w_axis=0,
    dequantize_scale=None,
    opset=17,
    computed_scale=False,
    tap=False,
):
    """x -> Q -> DQ -> Conv <- DQ <- Q <- weights, valid unless an argument breaks it."""
    make = helper.make_node
    arrays = {
        "w": np.ones((4, 3, 1, 1), F),
        "x_scale": _scale(x_scale),
        "x_scale2": _scale(x_scale if dequantize_scale is None else dequantize_scale),
        "w_scale": _scale(w_scale),
        "w_zero": np.asarray(w_zero),
    }
    zero = []
    if x_zero is not None:
        arrays["x_zero"] = np.asarray(x_zero)
        zero = ["x_zero"]
    nodes = [
        make("QuantizeLinear", ["x", "x_scale", *zero], ["x_q"], name="quantize_x"),
        make("DequantizeLinear", ["x_q", "x_scale2", *zero], ["x_dq"], name="dequantize_x"),
        make("QuantizeLinear", ["w", "w_scale", "w_zero"], ["w_q"], axis=w_axis, name="quantize_w"),
        make("DequantizeLinear", ["w_q", "w_scale", "w_zero"], ["w_dq"], axis=w_axis),
        make("Conv", ["x_dq", "w_dq"], ["y"], name="conv"),
    ]
    if computed_scale:
        nodes.insert(0, make("Identity", ["x_scale2"], ["x_scale"]))
        del arrays["x_scale"]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if tap:
        outputs.append(helper.make_tensor_value_info("x_q", TensorProto.INT8, None))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "broken",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            outputs,
            [numpy_helper.from_array(value, name) for name, value in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )


def _scale(value):
    return np.asarray(value, getattr(value, "dtype", F))


def test_sound_graph_has_no_faults():
    assert violations(graph()) == []


def test_graph_without_quantisation_has_no_faults():
    model = graph()
    del model.graph.node[:4]
    assert violations(model) == []


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ({"x_zero": np.int8(3)}, "the zero point is not 0"),
        ({"x_zero": np.uint8(0)}, "the type is uint8"),
        ({"x_zero": None}, "the type is uint8"),
        ({"x_scale": F(0)}, "scales must be above 0"),
        ({"x_scale": F(-1)}, "scales must be above 0"),
        ({"w_scale": np.array([1, 1, np.nan, 1], F)}, "scales must be above 0"),
        ({"w_zero": np.zeros(1, np.int8)}, "1 zero points and 4 scales"),
        ({"w_axis": 1}, "4 scales do not fit 3 channels on axis 1"),
        ({"w_axis": 7}, "axis 7 is none"),
        (
            {"w_axis": 1, "w_scale": np.ones(3, F), "w_zero": np.zeros(3, np.int8)},
            "not the weight's dimension of output channels",
        ),
        (
            {"x_scale": np.full(3, 0.1, F), "x_zero": np.zeros(3, np.int8)},
            "an activation has a scale for each channel",
        ),
        ({"computed_scale": True}, "the scale is computed"),
        ({"dequantize_scale": F(0.2)}, "have different scales"),
        ({"tap": True}, "not taken by DequantizeLinear alone"),
        ({"opset": 10}, "a scale for each channel needs opset 13"),
        ({"x_scale": np.float16(0.1)}, "a float16 scale needs opset 19"),
    ],
    ids=str,
)
def test_each_demand_is_checked(broken, fault):
    assert any(fault in sentence for sentence in violations(graph(**broken)))


def test_fault_names_the_node():
    (first, *_) = violations(graph(x_zero=np.int8(3)))
    assert first.startswith("QuantizeLinear quantize_x: ")
