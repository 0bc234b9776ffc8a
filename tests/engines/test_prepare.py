from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.errors import BuildError, UnsupportedModelError
from engines.prepare import HALF_OPSET, QUANTISE_OPSET, opset_of, prepare, raised
from tests.engines.graphs import convolution
from tests.engines.networks import CONVEYOR, model_of, node, run, yolo

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)


def test_nodes_without_or_with_equal_names_get_their_own():
    make = helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"]),
        make("Relu", ["a"], ["b"], name="same"),
        make("Relu", ["b"], ["c"], name="same"),
        make("Relu", ["c"], ["y"]),
    ]
    names = [n.name for n in prepare(model_of(nodes)).graph.node]
    assert names == ["Relu:a", "same", "same:c", "Relu:y"]


def test_the_given_model_stays_as_it_is():
    model = onnx.load(CONVEYOR)
    before = model.SerializeToString(deterministic=True)
    prepare(model)
    assert model.SerializeToString(deterministic=True) == before


def test_constants_become_initializers_of_equal_value():
    make = helper.make_node
    nodes = [
        make("Constant", [], ["f"], value_float=2.0),
        make("Constant", [], ["fs"], value_floats=[1.0] * 8),
        make("Constant", [], ["shape"], value_ints=[1, -1]),
        make("Mul", ["x", "f"], ["a"]),
        make("Add", ["a", "fs"], ["b"]),
        make("Reshape", ["b", "shape"], ["y"]),
    ]
    model = model_of(nodes)
    prepared = prepare(model)
    assert [n.op_type for n in prepared.graph.node] == ["Mul", "Add", "Reshape"]
    np.testing.assert_array_equal(run(prepared, X)[0], run(model, X)[0])


def test_a_float16_model_becomes_float32_with_the_same_weights():
    model = convolution(TensorProto.FLOAT16)
    prepared = prepare(model)
    assert all(
        t.type.tensor_type.elem_type == TensorProto.FLOAT
        for t in (*prepared.graph.input, *prepared.graph.output)
    )
    x = X[:, :3]
    np.testing.assert_allclose(run(prepared, x)[0], run(model, x.astype(np.float16))[0], atol=2e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    model = model_of([node("Add", "x w", "y")], {"w": np.array([1, value], "f").repeat(4)})
    with pytest.raises(UnsupportedModelError, match=r"'w'.*NaN or infinite"):
        prepare(model)


def test_a_quantised_model_is_refused_with_what_to_do():
    arrays = {"s": np.float32(1), "z": np.int8(0)}
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    with pytest.raises(UnsupportedModelError, match=r"quantised already.*float model"):
        prepare(model_of(nodes, arrays))


def test_an_old_opset_is_raised_and_computes_the_same():
    nodes = [
        node("Conv", "x w", "c", kernel_shape=[3, 3]),
        node("Softmax", "c", "s", axis=1),
        node("Squeeze", "s", "t", axes=[0]),
        node("Unsqueeze", "t", "y", axes=[0]),
    ]
    arrays = {"w": RNG.standard_normal((5, 4, 3, 3)).astype("f")}
    model = model_of(nodes, arrays, opset=11)
    prepared = prepare(model)
    assert opset_of(prepared) == QUANTISE_OPSET
    np.testing.assert_allclose(run(prepared, X)[0], run(model, X)[0], rtol=1e-5)


def test_newer_opsets_stay():
    assert opset_of(prepare(model_of([node("Relu", "x", "y")], opset=20))) == 20


@pytest.mark.parametrize("load", [lambda: onnx.load(CONVEYOR), lambda: yolo()[0]])
def test_raising_keeps_names_and_tensors(load):
    prepared = prepare(load())
    high = raised(prepared, HALF_OPSET)
    assert opset_of(high) == HALF_OPSET
    onnx.checker.check_model(high)
    assert [(n.name, list(n.output)) for n in high.graph.node] == [
        (n.name, list(n.output)) for n in prepared.graph.node
    ]
    assert high.graph.input == prepared.graph.input


def test_what_cannot_be_raised_is_a_build_error_that_says_what_to_do():
    model = model_of([node("ATen", "x", "y")], opset=11)
    with pytest.raises(BuildError, match=r"opset 11 cannot be raised to 13.*export"):
        prepare(model)


def test_weights_that_old_files_list_among_the_inputs_are_no_inputs():
    model = model_of([node("Add", "x w", "y")], {"w": np.ones(8, "f")})
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8]))
    assert [i.name for i in prepare(model).graph.input] == ["x"]
