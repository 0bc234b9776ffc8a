from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines.errors import CalibrationError
from engines.prepare import prepare
from engines.qdqrules import violations
from engines.quantize import (
    HALF_SCALE_FLOOR,
    SCALE_FLOOR,
    channel_scales,
    insert,
    place,
    share_groups,
    shared_ranges,
    too_fine,
)
from engines.wiring import float_activations
from tests.engines.networks import attention, by_name, model_of, node, run, snr_db

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)
NONE: frozenset[str] = frozenset()


def weights(*shape):
    return RNG.standard_normal(shape).astype("f")


def prepared(nodes, arrays=(), **more):
    return prepare(model_of(nodes, arrays, **more))


def ranges_of(model, x=X):
    """Exact ranges of every float tensor for one input."""
    names = float_activations(model)
    tapped = onnx.ModelProto()
    tapped.CopyFrom(onnx.shape_inference.infer_shapes(model))
    known = {v.name: v for v in (*tapped.graph.value_info, *tapped.graph.output)}
    inputs = {i.name for i in model.graph.input}
    del tapped.graph.output[:]
    tapped.graph.output.extend(known[n] for n in names if n not in inputs)
    values = run(tapped, x)
    found = {
        o.name: float(np.abs(v).max()) for o, v in zip(tapped.graph.output, values, strict=True)
    }
    return {**found, **{n: float(np.abs(x).max()) for n in inputs}}


def quantised(model, float_nodes=NONE, x=X, **more):
    amax = ranges_of(model, x)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return insert(copy, amax, float_nodes, **more)


def pairs(model):
    """Names of tensors that have a pair."""
    return [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]


LAYERS = {
    "Conv": ([node("Conv", "x w b", "y", pads=[1] * 4)], (6, 4, 3, 3), 0, 6),
    "Conv in groups": ([node("Conv", "x w b", "y", group=4)], (8, 1, 3, 3), 0, 8),
    "ConvTranspose": ([node("ConvTranspose", "x w b", "y")], (4, 6, 2, 2), 1, 6),
    "MatMul": ([node("MatMul", "x w", "y")], (8, 5), 1, 5),
    "Gemm": ([node("Flatten", "x", "f"), node("Gemm", "f w b", "y")], (256, 5), 1, 5),
    "Gemm transposed": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", transB=1)], (5, 256), 0, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_each_kind_of_layer_is_quantised_by_output_channel(name):
    nodes, shape, axis, channels = LAYERS[name]
    weight = weights(*shape)
    # Channels of very different reach: one scale for all would leave nothing of the weak ones.
    form = [-1 if i == axis else 1 for i in range(len(shape))]
    weight *= np.geomspace(1e-3, 1, channels).astype("f").reshape(form)
    model = prepared(nodes, {"w": weight, "b": weights(channels)})
    result = quantised(model)
    assert violations(result) == []
    assert set(pairs(result)) == {nodes[-1].input[0], "w"}
    assert snr_db(run(model, X)[0], run(result, X)[0]) > 30
    scales = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    (weight_scale,) = [v for n, v in scales.items() if n.startswith("w") and n.endswith("/scale")]
    assert weight_scale.shape == (channels,)


def test_biases_and_outputs_are_not_quantised():
    model = prepared(
        [node("Conv", "x w b", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")],
        {"w": weights(6, 4, 3, 3), "b": weights(6)},
    )
    result = quantised(model)
    assert sorted(pairs(result)) == ["w", "x"]
    assert by_name(result)["c"].input[2] == "b"


def test_int8_users_of_a_tensor_share_one_pair_and_others_take_it_exact():
    model = prepared(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "shared"),
            node("Conv", "shared v", "b"),
            node("Conv", "shared v", "c"),
            node("Tanh", "shared", "t"),
            node("Concat", "b c", "d", axis=1),
            node("Conv", "d u", "y"),
        ],
        {"w": weights(4, 4, 1, 1), "v": weights(4, 4, 1, 1), "u": weights(3, 8, 1, 1)},
        outputs=("y", "t"),
    )
    result = quantised(model)
    nodes = by_name(result)
    assert pairs(result).count("shared") == pairs(result).count("v") == 1
    assert nodes["b"].input == nodes["c"].input == ["shared/dq", "v/dq"]
    assert nodes["t"].input == ["shared"]


@pytest.mark.parametrize("order", ["direct kept", "kept direct"])
def test_of_an_addition_only_the_input_beside_the_convolution_is_quantised(order):
    model = prepared(
        [
            node("Conv", "x w", "a"),
            node("Relu", "a", "kept"),
            node("Conv", "kept w", "b"),
            node("Sigmoid", "b", "s"),
            node("Mul", "b s", "direct"),
            node("Add", order, "sum"),
            node("Conv", "sum w", "y"),
        ],
        {"w": weights(4, 4, 1, 1)},
    )
    result = quantised(model)
    taken = set(by_name(result)["sum"].input)
    assert taken == {"direct", "kept/dq"}
    assert violations(result) == []


def test_additions_without_a_convolution_stay_in_floating_point():
    model = prepared(
        [node("Sin", "x", "s"), node("Cos", "x", "c"), node("Add", "s c", "a"),
         node("Add", "a k", "b"), node("Add", "b b", "y")],
        {"k": weights(8)},
    )  # fmt: skip
    assert place(model, NONE).activations == {}


def test_two_activations_are_not_multiplied_in_int8():
    model = prepare(attention())
    placed = place(model, NONE)
    assert placed.nodes == {"q", "k", "v", "y"}
    assert set(placed.weights) == {"wq", "wk", "wv", "wo"}


def test_float_nodes_get_no_pairs():
    model = prepared(
        [node("Conv", "x w", "a"), node("Conv", "a w", "b"), node("MaxPool", "b", "y",
         kernel_shape=[2, 2])], {"w": weights(4, 4, 1, 1)},
    )  # fmt: skip
    result = quantised(model, frozenset({"b"}))
    assert by_name(result)["b"].input == ["a", "w"]
    assert by_name(result)["a"].input == ["x/dq", "w/dq"]
    assert by_name(result)["y"].input == ["b/dq"]


def test_tensors_with_the_same_values_share_one_range_up_to_float_nodes():
    model = prepared(
        [
            node("Conv", "x w", "a"),
            node("Conv", "x w", "b"),
            node("Concat", "a b", "joined", axis=1),
            node("MaxPool", "joined", "pooled", kernel_shape=[2, 2]),
            node("Transpose", "pooled", "turned", perm=[0, 1, 3, 2]),
            node("Relu", "turned", "y"),
        ],
        {"w": weights(4, 4, 1, 1)},
    )
    amax = {"x": 1.0, "a": 2.0, "b": 7.0, "joined": 7.0, "pooled": 6.0, "turned": 5.0, "y": 4.0}
    shared = shared_ranges(model, amax, NONE)
    assert shared == {
        **dict.fromkeys(["a", "b", "joined", "pooled", "turned"], 7.0),
        "x": 1,
        "y": 4,
    }
    parted = shared_ranges(model, amax, frozenset({"joined", "turned"}))
    assert parted == {**amax, "pooled": 7.0}
    assert len(set(share_groups(model, amax, NONE).values())) == 3


def test_cubic_interpolation_has_its_own_range():
    def groups(mode):
        model = prepared(
            [node("Resize", "x r s", "y", mode=mode)],
            {"r": np.zeros(0, "f"), "s": np.array([1, 1, 2, 2], "f")},
        )
        return set(share_groups(model, ["x", "y"], NONE).values())

    assert len(groups("nearest")) == len(groups("linear")) == 1
    assert len(groups("cubic")) == 2


def test_dead_channels_and_tensors_get_the_least_scale():
    weight = weights(3, 4, 1, 1)
    weight[1] = 0
    model = prepared([node("Conv", "x w", "y")], {"w": weight})
    result = insert(prepare(model), {"x": 0.0}, NONE)
    assert violations(result) == []
    scales = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert scales["w/scale"][1] == scales["x/scale"] == np.float32(SCALE_FLOOR)
    assert channel_scales(weight, 0, HALF_SCALE_FLOOR).min() == HALF_SCALE_FLOOR
    assert np.isfinite(run(result, X)[0]).all()


def test_a_weight_used_along_two_axes_is_quantised_twice():
    model = prepared(
        [node("Gemm", "x w", "a"), node("Gemm", "a w", "y", transB=1)],
        {"w": weights(8, 8)},
        inputs={"x": [2, 8]},
    )
    x = RNG.standard_normal((2, 8)).astype("f")
    result = quantised(model, x=x)
    assert violations(result) == []
    assert pairs(result).count("w") == 2
    assert snr_db(run(model, x)[0], run(result, x)[0]) > 30


def test_ranges_of_another_model_are_refused_with_what_to_do():
    model = prepared([node("Conv", "x w", "y")], {"w": weights(3, 4, 1, 1)})
    with pytest.raises(CalibrationError, match=r"'x'.*another model.*calibrated again"):
        insert(model, {"other": 1.0}, NONE)


def test_activations_too_small_for_float16_scales_are_found():
    model = prepared(
        [node("Conv", "x w", "a"), node("Conv", "a w", "y")], {"w": weights(4, 4, 1, 1)}
    )
    amax = {"x": 1.0, "a": 127 * HALF_SCALE_FLOOR / 5, "y": 1.0}
    assert too_fine(model, amax, NONE, HALF_SCALE_FLOOR) == {"y"}
    assert too_fine(model, {**amax, "a": 0.0}, NONE, HALF_SCALE_FLOOR) == NONE
    assert too_fine(model, amax, NONE, SCALE_FLOOR) == NONE


def test_nodes_stay_in_an_order_that_can_be_run():
    model = prepared(
        [node("Conv", "x w", "a"), node("Conv", "a w", "y")], {"w": weights(4, 4, 1, 1)}
    )
    known = {"x"} | {t.name for t in quantised(model).graph.initializer}
    for each in quantised(model).graph.node:
        assert known.issuperset(each.input)
        known.update(each.output)
