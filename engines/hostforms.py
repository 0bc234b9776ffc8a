"""Writes what processors compute slowly in a form that they compute fast, with the same result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.prepare import opset_of
from engines.wiring import Wiring

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES_INPUT_OPSET = 18
"""From here on ReduceMax takes its axes as an input."""

CHANNEL_AXES = (1, -3)
"""The channels of [B, C, H, W]."""

IMAGE_RANK = 4


def expectations(model: onnx.ModelProto) -> onnx.ModelProto:
    """Divide after an expectation over a softmax instead of before.

    YOLO reads each side of a box from a distribution: softmax over 16 bins, then a convolution
    with the weights 0..15. ONNX Runtime's softmax costs some 300 ns for each short row, a tenth of
    an int8 model's time. sum(i exp(x_i)) and sum(exp(x_i)) are one convolution with two output
    channels; as in a softmax, the largest x is subtracted first, so nothing overflows.

    Args:
        model: prepared float32 graph; changed in place.

    Returns:
        The model. The convolution keeps its name, and what it gives, too.
    """
    wiring = Wiring(model.graph)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        bins = _bins(node, wiring)
        if bins is not None:
            softmax = wiring.producers[node.input[0]]
            replaced[softmax.name] = _exponentials(model, softmax)
            replaced[node.name] = _quotient(model.graph, node, bins)
    if replaced:
        nodes = [n for node in model.graph.node for n in replaced.get(node.name, [node])]
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return model


def _bins(node: onnx.NodeProto, wiring: Wiring) -> NDArray[np.float32] | None:
    """Weights [1, C, 1, 1] of a convolution that takes one expectation over a softmax, or None."""
    softmax = wiring.producers.get(node.input[0]) if node.op_type == "Conv" else None
    if softmax is None or softmax.op_type != "Softmax" or len(node.input) != 2:  # noqa: PLR2004 - no bias
        return None
    axis = next((a.i for a in softmax.attribute if a.name == "axis"), -1)
    alone = len(wiring.consumers[node.input[0]]) == 1 and node.input[0] not in wiring.outputs
    weight = wiring.array(node.input[1]) if wiring.is_float(node.input[1]) else None
    if axis not in CHANNEL_AXES or not alone or weight is None or weight.ndim != IMAGE_RANK:
        return None
    plain = all(set(a.ints) <= {1} for a in node.attribute if a.name in ("strides", "dilations"))
    padded = any(any(a.ints) for a in node.attribute if a.name == "pads")
    single = weight.shape[0] == 1 and weight.shape[2:] == (1, 1)
    return weight if single and plain and not padded else None


def _exponentials(model: onnx.ModelProto, softmax: onnx.NodeProto) -> list[onnx.NodeProto]:
    """exp(x - max(x)), in the softmax's place."""
    name, taken, given = softmax.name, softmax.input[0], softmax.output[0]
    largest, less = f"{name}/largest", f"{name}/less"
    make = helper.make_node
    if opset_of(model) >= AXES_INPUT_OPSET:
        axes = numpy_helper.from_array(np.array([1], np.int64), f"{name}/axes")
        model.graph.initializer.append(axes)
        maximum = make("ReduceMax", [taken, axes.name], [largest], f"{name}/ReduceMax", keepdims=1)
    else:
        maximum = make("ReduceMax", [taken], [largest], f"{name}/ReduceMax", axes=[1], keepdims=1)
    return [
        maximum,
        make("Sub", [taken, largest], [less], f"{name}/Sub"),
        make("Exp", [less], [given], f"{name}/Exp"),
    ]


def _quotient(
    graph: onnx.GraphProto, node: onnx.NodeProto, bins: NDArray[np.float32]
) -> list[onnx.NodeProto]:
    """Both sums by one convolution, and their quotient."""
    name, given = node.name, node.output[0]
    both = np.concatenate([bins, np.ones_like(bins)])
    weight = numpy_helper.from_array(both, f"{name}/both")
    sizes = numpy_helper.from_array(np.array([1, 1], np.int64), f"{name}/sizes")
    graph.initializer.extend([weight, sizes])
    sums, parts = f"{name}/sums", [f"{name}/weighted", f"{name}/total"]
    make = helper.make_node
    convolution = onnx.NodeProto.FromString(node.SerializeToString())
    convolution.input[1] = weight.name
    convolution.output[0] = sums
    return [
        convolution,
        make("Split", [sums, sizes.name], parts, f"{name}/Split", axis=1),
        make("Div", parts, [given], f"{name}/Div"),
    ]
