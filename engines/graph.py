"""Moves input preparation into the graph: frames go in as uint8 BGR [B, H, W, 3].

Scaling to float, channel order and layout then cost no pass over the pixels on the host. Two styles
compute the same: "host" is what is fastest on a processor. Where the image feeds only ordinary
float32 convolutions, scale and channel order vanish into their weights there, so all that is left
at run time is one transpose and one cast. "device" is what TensorRT takes: uint8 goes into a cast
and nothing else, and the weights stay as they are, because divided by 255 many would be subnormal
in float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.errors import UnsupportedModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.model import ModelInfo

Style = Literal["host", "device"]
"""What the baked graph is meant for: a processor, or TensorRT."""

INPUT_NAME = "frames_bgr_u8"
"""Name of the baked graph's only input."""

PREFIX = "vigia/"
"""Prefix of the nodes and weights added here; no exporter uses it."""

PIXEL_MAX = 255.0
"""Models are trained on RGB scaled to 0..1, which is what `ModelInfo.mean` and `std` refer to."""


def bake(model: onnx.ModelProto, info: ModelInfo, style: Style = "host") -> onnx.ModelProto:
    """Put transpose, channel order, scaling and cast in front of the model.

    Args:
        model: the model as loaded; changed in place and returned.
        info: what `engines.describe` said of it; gives input name, type, size and normalisation.
        style: what the graph is meant for.

    Returns:
        The model with one input, `INPUT_NAME`: uint8 [B, info.height, info.width, 3], BGR.

    Raises:
        UnsupportedModelError: the image input is of a type that pixels cannot be converted to.
    """
    graph = model.graph
    name = info.input.name
    element = _element_type(graph, name)
    scale = np.array([1 / (PIXEL_MAX * s) for s in info.std], np.float32)
    offset = np.array([-m / s for m, s in zip(info.mean, info.std, strict=True)], np.float32)

    if style == "device":
        nodes = _device(graph, name, element, scale, offset)
    else:
        nodes = _host(graph, name, element, scale, offset)
    for node in nodes:
        node.name = PREFIX + node.op_type.lower() + ":" + node.output[0].removeprefix(PREFIX)

    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    others = [i for i in graph.input if i.name != name]
    batch = info.max_batch or "batch"
    del graph.input[:]
    shape = [batch, info.height, info.width, 3]
    graph.input.extend([helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)])
    graph.input.extend(others)
    # Recorded shapes of intermediates may contradict a size that was open in the file.
    del graph.value_info[:]
    return model


def _host(
    graph: onnx.GraphProto,
    name: str,
    element: int,
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> list[onnx.NodeProto]:
    """Transpose while a pixel is one byte, and compute as little as possible."""
    make = helper.make_node
    nodes = [make("Transpose", [INPUT_NAME], [PREFIX + "nchw"], perm=[0, 3, 1, 2])]
    if element == TensorProto.FLOAT and not offset.any() and _fold(graph, name, scale):
        nodes.append(make("Cast", [PREFIX + "nchw"], [name], to=TensorProto.FLOAT))
        return nodes
    order = _constant(graph, "order", np.array([2, 1, 0]))
    nodes.append(make("Gather", [PREFIX + "nchw", order], [PREFIX + "rgb"], axis=1))
    if element == TensorProto.UINT8:
        # A uint8 model takes the pixels as they are.
        return [*nodes, make("Identity", [PREFIX + "rgb"], [name])]
    nodes.append(make("Cast", [PREFIX + "rgb"], [PREFIX + "float"], to=TensorProto.FLOAT))
    return nodes + _normalise(graph, name, element, scale, offset)


def _device(
    graph: onnx.GraphProto,
    name: str,
    element: int,
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> list[onnx.NodeProto]:
    """Cast first, and leave the model's weights alone."""
    make = helper.make_node
    order = _constant(graph, "order", np.array([2, 1, 0]))
    nodes = [
        make("Cast", [INPUT_NAME], [PREFIX + "pixels"], to=TensorProto.FLOAT),
        make("Transpose", [PREFIX + "pixels"], [PREFIX + "nchw"], perm=[0, 3, 1, 2]),
    ]
    if element == TensorProto.UINT8:
        rgb = PREFIX + "rgb"
        users = [n for n in graph.node if name in n.input]
        if all(n.op_type == "Cast" for n in users):
            # They turn uint8 to float, and do not mind to be given float already.
            for node in users:
                node.input[0] = rgb
            return [*nodes, make("Gather", [PREFIX + "nchw", order], [rgb], axis=1)]
        cast = make("Cast", [rgb], [name], to=TensorProto.UINT8)
        return [*nodes, make("Gather", [PREFIX + "nchw", order], [rgb], axis=1), cast]
    nodes.append(make("Gather", [PREFIX + "nchw", order], [PREFIX + "float"], axis=1))
    return nodes + _normalise(graph, name, element, scale, offset)


def _element_type(graph: onnx.GraphProto, name: str) -> int:
    accepted = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
    element = next(i.type.tensor_type.elem_type for i in graph.input if i.name == name)
    if element not in accepted:
        raise UnsupportedModelError(
            f"input {name!r} has type {TensorProto.DataType.Name(element)}; "
            "export the model with a float32, float16 or uint8 image input"
        )
    return int(element)


def _normalise(
    graph: onnx.GraphProto,
    name: str,
    element: int,
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> list[onnx.NodeProto]:
    """Nodes from RGB as float32 of 0..255 to the model's own input.

    Scaled in float32 also for a float16 model: 1/255 of a weight may be subnormal there.
    """
    make = helper.make_node
    factor = _constant(graph, "scale", scale.reshape(1, 3, 1, 1))
    shift = _constant(graph, "offset", offset.reshape(1, 3, 1, 1))
    last = name if element == TensorProto.FLOAT else PREFIX + "normalised"
    nodes = [
        make("Mul", [PREFIX + "float", factor], [PREFIX + "scaled"]),
        make("Add", [PREFIX + "scaled", shift], [last]),
    ]
    if last != name:
        nodes.append(make("Cast", [last], [name], to=element))
    return nodes


def _constant(graph: onnx.GraphProto, name: str, value: NDArray[Any]) -> str:
    graph.initializer.append(numpy_helper.from_array(value, PREFIX + name))
    return PREFIX + name


def _fold(graph: onnx.GraphProto, name: str, scale: NDArray[np.float32]) -> bool:
    """Put scale and RGB->BGR into the weights of the first convolutions, if that is exact."""
    users = [n for n in graph.node if name in n.input]
    weights = {w.name: w for w in graph.initializer}
    foldable = users and all(
        n.op_type == "Conv"
        and n.input[0] == name
        and n.input[1] in weights
        and weights[n.input[1]].data_type == TensorProto.FLOAT
        and weights[n.input[1]].dims[1] == len(scale)
        for n in users
    )
    if not foldable:
        return False
    for number, node in enumerate(users):
        weight = numpy_helper.to_array(weights[node.input[1]])
        folded = (weight * scale.reshape(1, 3, 1, 1))[:, ::-1]
        node.input[1] = _constant(graph, f"first_conv_{number}", np.ascontiguousarray(folded))
    # The original weights stay if somebody else uses them, else the runtime drops them.
    return True
