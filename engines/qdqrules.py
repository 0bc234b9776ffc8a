"""What TensorRT's ONNX parser demands of quantised graphs, checked before it sees them.

The parser's own refusals name an internal assertion; these name the node and the reason. The
demands are read from onnx-tensorrt's `onnxOpImporters.cpp` (QuantizeLinear, DequantizeLinear).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.prepare import HALF_OPSET, QUANTISE_OPSET, opset_of
from engines.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

QUANTIZE = "QuantizeLinear"
DEQUANTIZE = "DequantizeLinear"

DEFAULT_AXIS = 1
"""ONNX's default of the attribute `axis`."""

OUTPUT_AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": None, "MatMul": None}
"""The weights' dimension of output channels; None where an attribute or the rank decides."""


def violations(model: onnx.ModelProto) -> list[str]:
    """Everything that TensorRT would refuse, one sentence each; none if the graph may go there.

    Args:
        model: with or without QuantizeLinear and DequantizeLinear nodes.
    """
    wiring = Wiring(model.graph)
    opset = opset_of(model)
    return [
        f"{node.op_type} {node.name or node.output[0]}: {fault}"
        for node in model.graph.node
        if node.op_type in (QUANTIZE, DEQUANTIZE)
        for fault in _faults(node, wiring, opset)
    ]


def _faults(node: onnx.NodeProto, wiring: Wiring, opset: int) -> Iterator[str]:
    scale = wiring.array(node.input[1])
    if scale is None:
        yield "the scale is computed; it must be a constant"
        return
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "a scale is 0, negative or not finite; scales must be above 0"
    yield from _zero_point_faults(node, wiring, scale)
    yield from _channel_faults(node, wiring, scale)
    if scale.dtype == np.float16 and opset < HALF_OPSET:
        yield f"a float16 scale needs opset {HALF_OPSET}; the model has {opset}"
    if scale.size > 1 and opset < QUANTISE_OPSET:
        yield f"a scale for each channel needs opset {QUANTISE_OPSET}; the model has {opset}"
    if node.op_type == QUANTIZE:
        yield from _pair_faults(node, wiring)


def _zero_point_faults(
    node: onnx.NodeProto, wiring: Wiring, scale: NDArray[np.generic]
) -> Iterator[str]:
    if len(node.input) < 3 or not node.input[2]:  # noqa: PLR2004 - the third input is optional
        if node.op_type == QUANTIZE:
            yield "there is no zero point, so the type is uint8; give an int8 zero point of 0"
        return
    zero = wiring.array(node.input[2])
    if zero is None:
        yield "the zero point is computed; it must be a constant"
        return
    if zero.any():
        yield "the zero point is not 0; quantise symmetrically"
    if zero.dtype != np.int8:
        yield f"the type is {zero.dtype}; it must be int8"
    if zero.size != scale.size:
        yield f"there are {zero.size} zero points and {scale.size} scales"


def _channel_faults(
    node: onnx.NodeProto, wiring: Wiring, scale: NDArray[np.generic]
) -> Iterator[str]:
    if scale.size == 1:
        return
    weight = _weight(node, wiring)
    if weight is None:
        yield "an activation has a scale for each channel; give it a single one"
        return
    axis = next((a.i for a in node.attribute if a.name == "axis"), DEFAULT_AXIS)
    shape = tuple(weight.dims)
    if not -len(shape) <= axis < len(shape):
        yield f"axis {axis} is none of a weight of shape {list(shape)}"
    elif shape[axis] != scale.size:
        yield f"{scale.size} scales do not fit {shape[axis]} channels on axis {axis}"
    elif not _is_output_axis(node, wiring, axis % len(shape), len(shape)):
        yield f"axis {axis} is not the weight's dimension of output channels"


def _weight(node: onnx.NodeProto, wiring: Wiring) -> onnx.TensorProto | None:
    """The constant that a node quantises, or whose quantised form it turns back."""
    name = node.input[0]
    producer = wiring.producers.get(name)
    if producer is not None and producer.op_type == QUANTIZE:
        name = producer.input[0]
    return wiring.weights.get(name)


def _is_output_axis(node: onnx.NodeProto, wiring: Wiring, axis: int, rank: int) -> bool:
    """Whether every weighted node behind agrees; nodes of other kinds are not asked."""
    users = [
        other
        for user in wiring.children(node)
        for other in ([user] if user.op_type != DEQUANTIZE else wiring.children(user))
    ]
    for user in users:
        if user.op_type not in OUTPUT_AXES:
            continue
        wanted = OUTPUT_AXES[user.op_type]
        if user.op_type == "Gemm":
            transposed = next((a.i for a in user.attribute if a.name == "transB"), 0)
            wanted = 0 if transposed else 1
        elif user.op_type == "MatMul":
            wanted = rank - 1
        if axis != wanted:
            return False
    return True


def _pair_faults(node: onnx.NodeProto, wiring: Wiring) -> Iterator[str]:
    users = wiring.children(node)
    if not users or any(u.op_type != DEQUANTIZE for u in users) or node.output[0] in wiring.outputs:
        yield "what it gives is not taken by DequantizeLinear alone"
        return
    own = wiring.array(node.input[1])
    for user in users:
        other = wiring.array(user.input[1])
        if own is None or other is None or not np.array_equal(own, other):
            yield f"it and {user.name or user.output[0]!r} have different scales"
