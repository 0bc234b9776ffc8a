"""What a graph's weights and first nodes say of its health: pure facts, for the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from engines.weights import KEEPING, WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SCALE_BYTES = 255.0
"""Pixels are 0..255; who divides by this, or multiplies by its inverse, scales them to 0..1."""

SCALE_TOLERANCE = 0.02
"""Relative; some divide by 256."""

FP16_MAX = float(np.finfo(np.float16).max)
FP16_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
FP16_TINY = float(np.finfo(np.float16).tiny)
FP32_TINY = float(np.finfo(np.float32).tiny)

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}

MAX_STEPS = 24
"""Nodes after the input that are looked at: normalisation stands at the very beginning."""


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """Counts over the weights of a graph.

    Attributes:
        values: floating-point weights.
        not_finite: NaN or infinite ones.
        first_bad: name of the first tensor with such a one, or empty.
        subnormal: not 0, and smaller than float32's smallest normal number.
        fp16_overflow: magnitude above what float16 holds.
        fp16_vanish: not 0, but 0 in float16.
        fp16_subnormal: not 0 in float16, but below its smallest normal number.
        dead: output channels of convolutions whose weights are all 0.
        channels: output channels of convolutions in all.
        dead_layers: names of the layers with dead channels, worst first.
    """

    values: int = 0
    not_finite: int = 0
    first_bad: str = ""
    subnormal: int = 0
    fp16_overflow: int = 0
    fp16_vanish: int = 0
    fp16_subnormal: int = 0
    dead: int = 0
    channels: int = 0
    dead_layers: tuple[str, ...] = ()


def weight_facts(model: onnx.ModelProto) -> WeightFacts:
    """Look at every floating-point weight."""
    values = not_finite = subnormal = overflow = vanish = small = 0
    first_bad = ""
    arrays = dict(_float_weights(model.graph))
    for name, array in arrays.items():
        size = np.abs(array.astype(np.float64))
        finite = np.isfinite(size)
        bad = int(size.size - finite.sum())
        if bad and not first_bad:
            first_bad = name
        size = size[finite & (size > 0)]
        values += array.size
        not_finite += bad
        subnormal += int((size < FP32_TINY).sum())
        overflow += int((size > FP16_MAX).sum())
        vanish += int((size < FP16_SMALLEST / 2).sum())
        small += int(((size >= FP16_SMALLEST / 2) & (size < FP16_TINY)).sum())
    dead: dict[str, int] = {}
    channels = 0
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in arrays:
            filters = arrays[node.input[1]].reshape(arrays[node.input[1]].shape[0], -1)
            channels += len(filters)
            zero = int((~filters.any(axis=1)).sum())
            if zero:
                dead[node.name or node.output[0]] = zero
    return WeightFacts(
        values,
        not_finite,
        first_bad,
        subnormal,
        overflow,
        vanish,
        small,
        sum(dead.values()),
        channels,
        tuple(sorted(dead, key=lambda name: -dead[name])),
    )


def _float_weights(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.floating]]]:
    for tensor in graph.initializer:
        if tensor.data_type in FLOATS:
            yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type in FLOATS:
                yield node.output[0], numpy_helper.to_array(attribute.t)


@dataclass(frozen=True, slots=True)
class InputSteps:
    """What a graph does to its image before the first layer with weights.

    Attributes:
        scales: nodes that scale 0..255 to 0..1, like "Div /pre/Div by 255".
        shifts: nodes that subtract a mean or divide by a deviation, likewise.
        swaps: nodes that change the order of the channels.
    """

    scales: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()


def input_steps(model: onnx.ModelProto, name: str) -> InputSteps:
    """Walk from an input to the first layers with weights.

    Args:
        model: not changed.
        name: of the image input.
    """
    graph = model.graph
    constants = _constants(graph)
    reached, scales, shifts, swaps = {name}, [], [], []
    steps = 0
    for node in graph.node:  # sorted so that a node comes after those it reads from
        if not reached.intersection(node.input) or node.op_type in WEIGHTED:
            continue
        steps += 1
        if steps > MAX_STEPS:
            break
        label = f"{node.op_type} {node.name or node.output[0]}"
        value = next((constants[i] for i in node.input if i in constants), None)
        if node.op_type in ("Mul", "Div") and value is not None and value.size:
            factor = np.abs(value.astype(np.float64))
            by = 1 / factor if node.op_type == "Mul" else factor
            if np.all(np.isfinite(by)) and np.allclose(by, SCALE_BYTES, rtol=SCALE_TOLERANCE):
                scales.append(f"{label} by {float(by.flat[0]):.4g}")
            elif node.op_type == "Div" or value.size == 3:  # noqa: PLR2004 - one for each channel
                shifts.append(label)
        elif node.op_type in ("Sub", "Add", "BatchNormalization") and (
            value is not None or node.op_type == "BatchNormalization"
        ):
            shifts.append(label)
        elif node.op_type == "Gather" and value is not None and list(value.flat) == [2, 1, 0]:
            swaps.append(label)
        elif node.op_type not in KEEPING:
            continue
        reached.update(node.output)
    return InputSteps(tuple(scales), tuple(shifts), tuple(swaps))


def _constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """Small constants by name; a weight of the first layer is none."""
    limit = 4096
    found: dict[str, NDArray[np.generic]] = {
        t.name: numpy_helper.to_array(t)
        for t in graph.initializer
        if int(np.prod(t.dims, dtype=np.int64)) <= limit
    }
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found
