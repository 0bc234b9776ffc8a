"""Small ONNX graphs for engine tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.base import TensorSpec
from engines.model import Layout, ModelInfo, Resize, Task

SIZE = 8
TYPES = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.UINT8: np.uint8,
}


def convolution(
    element: int = TensorProto.FLOAT, batch: int | str = 1, *, branch: bool = False
) -> onnx.ModelProto:
    """images [B,3,8,8] -> 3x3 convolution -> output0 [B,4,8,8].

    With `branch`, something other than a convolution uses the image too.
    """
    rng = np.random.default_rng(0)
    dtype = TYPES[element] if element != TensorProto.UINT8 else np.float32
    weight = rng.standard_normal((4, 3, 3, 3)).astype(dtype)
    nodes, source = [], "images"
    if element == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT))
        source = "f"
    nodes.append(
        helper.make_node("Conv", [source, "w"], ["conv"], kernel_shape=[3, 3], pads=[1] * 4)
    )
    if branch:
        nodes.append(helper.make_node("ReduceMean", [source], ["mean"], axes=[1, 2, 3], keepdims=1))
        nodes.append(helper.make_node("Add", ["conv", "mean"], ["output0"]))
    else:
        nodes.append(helper.make_node("Identity", ["conv"], ["output0"]))
    result = TensorProto.FLOAT if element == TensorProto.UINT8 else element
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", element, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output0", result, [batch, 4, SIZE, SIZE])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def info(
    element: int = TensorProto.FLOAT, max_batch: int | None = 1, **changes: object
) -> ModelInfo:
    """What `describe` would say of it, as far as baking needs it."""
    values: dict[str, object] = {
        "name": "g",
        "digest": "sha256:00",
        "task": Task.DETECT,
        "layout": Layout.YOLO,
        "names": (),
        "input": TensorSpec("images", (max_batch, 3, SIZE, SIZE), np.dtype(TYPES[element])),
        "outputs": (),
        "height": SIZE,
        "width": SIZE,
        "max_batch": max_batch,
        "resize": Resize.LETTERBOX,
    }
    return ModelInfo(**{**values, **changes})  # type: ignore[arg-type]
