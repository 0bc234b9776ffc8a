from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from engines.errors import CalibrationError
from engines.prepare import prepare
from engines.quantizehost import SILU_LEAST, Grid, grids, insert_host
from engines.ranges import Ranges
from tests.engines.networks import by_name, model_of, node, run, snr_db
from tests.engines.test_quantize import LAYERS, X, ranges_of, weights

NONE: frozenset[str] = frozenset()
SILU = [node("Conv", "x w b", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]


def ranges(amax, least=None):
    least = {n: -v for n, v in amax.items()} | (least or {})
    return Ranges("max", "m", "d", 1, amax, least)


def prepared(nodes, arrays=(), **more):
    return prepare(model_of(nodes, arrays, **more))


def silu():
    return prepared(SILU, {"w": weights(4, 4, 3, 3), "b": weights(4)})


def hosted(model, float_nodes=NONE, least=None, x=X):
    values = ranges(ranges_of(model, x), least)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return insert_host(copy, values, float_nodes)


def operations(model, tmp_path):
    """Kinds of node that ONNX Runtime makes of a graph."""
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"ConvTranspose"}))
def test_each_kind_of_layer_runs_in_int8_and_gives_nearly_the_same(name, tmp_path):
    nodes, shape, _, channels = LAYERS[name]
    model = prepared(nodes, {"w": weights(*shape), "b": weights(channels)})
    result = hosted(model)
    assert snr_db(run(model, X)[0], run(result, X)[0]) > 30
    kinds = operations(result, tmp_path)
    assert {"QLinearConv", "QGemm", "QLinearMatMul"}.intersection(kinds)
    assert not {"Conv", "Gemm", "MatMul"}.intersection(kinds)


def test_an_activation_runs_in_int8_with_its_convolution(tmp_path):
    kinds = operations(hosted(silu()), tmp_path)
    assert {"QLinearConv", "QLinearSigmoid", "QLinearMul"} <= set(kinds)
    assert not {"Conv", "Sigmoid", "Mul", "QuickGelu"}.intersection(kinds)


def test_transposed_convolutions_stay_in_floating_point():
    nodes, shape, _, channels = LAYERS["ConvTranspose"]
    model = prepared(nodes, {"w": weights(*shape), "b": weights(channels)})
    assert run(hosted(model), X)[0].tobytes() == run(model, X)[0].tobytes()


def test_float_nodes_compute_as_before():
    model = silu()
    assert run(hosted(model, frozenset({"c"})), X)[0].tobytes() == run(model, X)[0].tobytes()


def test_no_levels_are_spent_below_the_least_value():
    model = silu()
    amax = {"x": 3.0, "c": 9.0, "s": 1.0, "y": 9.0}
    found = grids(model, ranges(amax, {"s": 0.0, "y": -0.25, "x": 0.0}), NONE)
    assert found["s"] == Grid(float(np.float32(1 / 255)), 0)
    assert found["x"] == Grid(float(np.float32(3 / 255)), 0)
    assert found["y"].scale == pytest.approx(9.25 / 255)
    assert found["y"].zero == round(0.25 / found["y"].scale)


def test_what_goes_into_a_silu_alone_is_cut_where_it_gives_nothing():
    model = silu()
    amax = {"x": 1.0, "c": 50.0, "s": 1.0, "y": 50.0}
    assert grids(model, ranges(amax), NONE)["c"].scale == pytest.approx((50 - SILU_LEAST) / 255)
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    assert grids(model, ranges(amax), NONE)["c"].scale == pytest.approx(100 / 255)


def test_zero_is_exact_on_every_grid():
    rng = np.random.default_rng(1)
    model = prepared([node("Conv", "x w", "y")], {"w": weights(4, 4, 1, 1)})
    for amax, share in rng.uniform(1e-6, 1, (50, 2)) * [1000, 1]:
        scale, zero = grids(model, ranges({"x": amax}, {"x": -amax * share}), NONE)["x"]
        assert 0 <= zero <= 128
        assert (255 - zero) * scale == pytest.approx(amax, abs=scale)
        assert -zero * scale == pytest.approx(-amax * share, abs=scale)


def test_pixels_are_taken_as_they_are(tmp_path):
    nodes = [node("Cast", "pixels", "x", to=TensorProto.FLOAT), node("Conv", "x w", "y")]
    model = model_of(nodes, {"w": weights(4, 4, 1, 1)}, inputs={"pixels": [1, 4, 8, 8]})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model = prepare(model)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 8), np.uint8)
    expected = run(model, pixels)[0]
    values = ranges({"x": 255.0, "y": float(np.abs(expected).max())}, {"x": 0.0})
    result = insert_host(model, values, NONE)
    assert "QuantizeLinear" not in operations(result, tmp_path)
    assert snr_db(expected, run(result, pixels)[0]) > 35


def test_a_large_bias_on_tiny_weights_does_not_overflow():
    weight, bias = weights(4, 4, 1, 1), weights(4)
    weight[2] *= 1e-9
    bias[2] = 1000
    model = prepared([node("Conv", "x w b", "y")], {"w": weight, "b": bias})
    expected, found = run(model, X)[0], run(hosted(model), X)[0]
    np.testing.assert_allclose(found[0, 2], expected[0, 2], rtol=0.01)


def test_a_dead_tensor_is_no_reason_to_lose_the_bias():
    model = prepared([node("Conv", "x w b", "y")], {"w": weights(4, 4, 1, 1), "b": weights(4)})
    result = insert_host(model, ranges({"x": 0.0, "y": 4.0}), NONE)
    bias = run(model, np.zeros_like(X))[0]
    assert snr_db(bias, run(result, np.zeros_like(X))[0]) > 30


def test_joined_tensors_share_a_grid_and_take_a_float_one_along():
    model = prepared(
        [node("Conv", "x w", "a"), node("Tanh", "x", "t"), node("Concat", "a t", "j", axis=1),
         node("Conv", "j v", "y")],
        {"w": weights(4, 4, 1, 1), "v": weights(4, 8, 1, 1)},
    )  # fmt: skip
    result = hosted(model)
    scales = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert scales["a/scale"] == scales["t/scale"] == scales["j/scale"]
    assert by_name(result)["j"].input == ["a", "t/dq"]


def test_what_no_layer_gives_in_int8_is_left_alone():
    model = prepared([node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Sigmoid", "a", "y")])
    assert [n.op_type for n in hosted(model).graph.node] == ["Transpose", "Sigmoid"]


def test_outputs_keep_their_names():
    model = silu()
    assert [o.name for o in hosted(model).graph.output] == ["y"]


def test_ranges_of_another_model_are_refused():
    with pytest.raises(CalibrationError, match=r"'x'.*another model"):
        insert_host(silu(), ranges({"other": 1.0}), NONE)
