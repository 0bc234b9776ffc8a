from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from engines.errors import UnsupportedModelError
from engines.graph import INPUT_NAME, PREFIX, bake
from tests.engines.graphs import SIZE, TYPES, convolution, info

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def frames(count: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def reference(bgr: np.ndarray, element: int, mean=(0, 0, 0), std=(1, 1, 1)) -> np.ndarray:
    """Input preparation as every tutorial does it, in numpy."""
    rgb = bgr[..., ::-1].transpose(0, 3, 1, 2)
    if element == TensorProto.UINT8:
        return np.ascontiguousarray(rgb)
    shape = (1, 3, 1, 1)
    scaled = (rgb / 255.0 - np.reshape(mean, shape)) / np.reshape(std, shape)
    return scaled.astype(TYPES[element])


def run(model, feed):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("style", ["host", "device"])
def test_baked_graphs_agree_with_preparation_on_the_host(element, branch, normalised, style):
    if normalised and element == TensorProto.UINT8:
        pytest.skip("a uint8 model normalises inside its own graph")
    changes = {"mean": MEAN, "std": STD} if normalised else {}
    bgr = frames()
    prepared = reference(bgr, element, *(changes.values() or ((0, 0, 0), (1, 1, 1))))
    expected = run(convolution(element, branch=branch), {"images": prepared})
    model = bake(convolution(element, branch=branch), info(element, **changes), style)
    tolerance = 5e-2 if element == TensorProto.FLOAT16 else 1e-4
    np.testing.assert_allclose(
        run(model, {INPUT_NAME: bgr}).astype(float), expected.astype(float), atol=tolerance
    )


def test_scale_and_order_vanish_into_the_first_convolution():
    kinds = [n.op_type for n in bake(convolution(), info()).graph.node]
    assert kinds == ["Transpose", "Cast", "Conv", "Identity"]


@pytest.mark.parametrize("style", ["host", "device"])
def test_a_dynamic_batch_stays_dynamic(style):
    model = bake(convolution(batch="n"), info(max_batch=None), style)
    bgr = frames(3)
    expected = run(convolution(batch=3), {"images": reference(bgr, TensorProto.FLOAT)})
    np.testing.assert_allclose(run(model, {INPUT_NAME: bgr}), expected, atol=1e-4)


def test_an_input_of_another_type_is_refused_with_what_to_do():
    model = convolution()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(UnsupportedModelError, match=r"INT64.*export"):
        bake(model, info())


def test_the_device_style_takes_bytes_into_a_cast_and_leaves_weights_alone():
    original = convolution()
    model = bake(convolution(), info(), "device")
    kinds = [n.op_type for n in model.graph.node]
    assert kinds == ["Cast", "Transpose", "Gather", "Mul", "Add", "Conv", "Identity"]
    weights = {w.name: w for w in model.graph.initializer}
    assert weights["w"] == original.graph.initializer[0]
    (first,) = [n for n in model.graph.node if INPUT_NAME in n.input]
    assert first.op_type == "Cast"


def test_a_uint8_model_for_the_device_never_sees_bytes_again():
    model = bake(convolution(TensorProto.UINT8), info(TensorProto.UINT8), "device")
    casts = [a.i for n in model.graph.node if n.op_type == "Cast" for a in n.attribute]
    assert TensorProto.UINT8 not in casts


def test_a_uint8_model_that_computes_with_bytes_gets_bytes():
    model = convolution(TensorProto.UINT8)
    model.graph.node.append(helper.make_node("Identity", ["images"], ["bytes"]))
    value = helper.make_tensor_value_info("bytes", TensorProto.UINT8, None)
    model.graph.output.append(value)
    bgr = frames()
    session = ort.InferenceSession(
        bake(model, info(TensorProto.UINT8), "device").SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    np.testing.assert_array_equal(
        session.run(["bytes"], {INPUT_NAME: bgr})[0], reference(bgr, TensorProto.UINT8)
    )


@pytest.mark.parametrize("style", ["host", "device"])
def test_every_added_node_has_a_name_of_ours(style):
    before = len(convolution().graph.node)
    added = bake(convolution(), info(mean=MEAN, std=STD), style).graph.node[:-before]
    names = [n.name for n in added]
    assert all(n.startswith(PREFIX) for n in names)
    assert len(set(names)) == len(names)
