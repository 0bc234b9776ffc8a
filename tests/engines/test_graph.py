from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from engines.errors import UnsupportedModelError
from engines.graph import INPUT_NAME, bake
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
def test_baked_graphs_agree_with_preparation_on_the_host(element, branch, normalised):
    if normalised and element == TensorProto.UINT8:
        pytest.skip("a uint8 model normalises inside its own graph")
    changes = {"mean": MEAN, "std": STD} if normalised else {}
    bgr = frames()
    prepared = reference(bgr, element, *(changes.values() or ((0, 0, 0), (1, 1, 1))))
    expected = run(convolution(element, branch=branch), {"images": prepared})
    model = bake(convolution(element, branch=branch), info(element, **changes))
    tolerance = 5e-2 if element == TensorProto.FLOAT16 else 1e-4
    np.testing.assert_allclose(
        run(model, {INPUT_NAME: bgr}).astype(float), expected.astype(float), atol=tolerance
    )


def test_scale_and_order_vanish_into_the_first_convolution():
    kinds = [n.op_type for n in bake(convolution(), info()).graph.node]
    assert kinds == ["Transpose", "Cast", "Conv", "Identity"]


def test_a_dynamic_batch_stays_dynamic():
    model = bake(convolution(batch="n"), info(max_batch=None))
    bgr = frames(3)
    expected = run(convolution(batch=3), {"images": reference(bgr, TensorProto.FLOAT)})
    np.testing.assert_allclose(run(model, {INPUT_NAME: bgr}), expected, atol=1e-4)


def test_an_input_of_another_type_is_refused_with_what_to_do():
    model = convolution()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(UnsupportedModelError, match=r"INT64.*export"):
        bake(model, info())
