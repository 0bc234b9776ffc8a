"""Puts Q/DQ pairs into a float32 graph as ONNX Runtime's CPU kernels need them.

TensorRT finds out by itself what fuses and where int8 values travel on; ONNX Runtime runs an
operation in int8 only if a pair stands on each of its inputs and outputs. So the same ranges and
the same float nodes lead to a graph with more pairs here:

- on what a convolution gives, not only on what it takes, and around the activation behind it;
- biases as int32 of the product of both scales;
- weights as stored int8;
- activations as uint8, the type that x86's dot product instructions multiply by int8. Its zero
  point is free here, so no levels are spent below a tensor's least value: the output of a SiLU has
  nearly twice as many levels as with a zero point in the middle, and a picture keeps all of its.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.quantize import (
    SCALE_FLOOR,
    channel_scales,
    interleave,
    keeps_range,
    share_groups,
    uncalibrated,
    weight_axis,
)
from engines.ranges import QUANTISED_MAX
from engines.weights import WEIGHTED
from engines.wiring import Wiring, element_types, float_activations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.ranges import Ranges

UINT8_MAX = 255

INTEGER_OPERATIONS = frozenset(
    {"Add", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Mul", "Relu", "Sigmoid"}
)
"""Operations, beside those with weights and those that keep ranges, with an int8 kernel."""

SILU_LEAST = -8.0
"""x * sigmoid(x) is -0.0027 here and nearer to 0 below: no levels are spent on what comes in."""

BIAS = 2
"""Place of the bias among a node's inputs."""

BIAS_MAX = 2.0**30
"""Largest quantised bias; leaves as much room for the products added to it."""


class Grid(NamedTuple):
    """The values that an activation can take: (0..255 - zero) * scale."""

    scale: float
    zero: int


def insert_host(
    model: onnx.ModelProto, ranges: Ranges, float_nodes: frozenset[str]
) -> onnx.ModelProto:
    """Put the pairs in.

    Args:
        model: prepared float32 graph of opset 13 or later; changed in place.
        ranges: calibrated ranges.
        float_nodes: names of nodes that stay in floating point.

    Returns:
        The model.

    Raises:
        CalibrationError: a tensor that is to be quantised has no range.
    """
    work = _Host(model, grids(model, ranges, float_nodes))
    chosen = work.choose(float_nodes)
    for node in chosen:
        work.surround(node)
    interleave(model.graph, work.pairs)
    return model


def grids(model: onnx.ModelProto, ranges: Ranges, float_nodes: frozenset[str]) -> dict[str, Grid]:
    """The grid of every tensor that was calibrated, one for all tensors that share their values."""
    leaders = share_groups(model, ranges.amax, float_nodes)
    gated = _gated(model)
    ends: dict[str, tuple[float, float]] = {}
    for name, amax in ranges.amax.items():
        least = ranges.least[name]
        if name in gated:
            least = max(least, SILU_LEAST)
        low, high = ends.get(leaders[name], (0.0, 0.0))
        ends[leaders[name]] = (min(low, least), max(high, amax))
    found = {}
    for name, leader in leaders.items():
        low, high = ends[leader]
        scale = max(float(np.float32((high - low) / UINT8_MAX)), SCALE_FLOOR)
        found[name] = Grid(scale, round(-low / scale))
    return found


def _gated(model: onnx.ModelProto) -> set[str]:
    """Tensors that go into x * sigmoid(x) and nowhere else."""
    wiring = Wiring(model.graph)
    found = set()
    for name, users in wiring.consumers.items():
        gates = [u.output[0] for u in users if u.op_type == "Sigmoid"]
        rest = [u for u in users if u.op_type != "Sigmoid"]
        if len(gates) == len(rest) == 1 and name not in wiring.outputs:
            (product,) = rest
            if product.op_type == "Mul" and set(product.input) == {name, *gates}:
                found.add(name)
    return found


class _Host:
    """One graph while pairs are put in."""

    def __init__(self, model: onnx.ModelProto, grids: dict[str, Grid]) -> None:
        self.graph = model.graph
        self.grids = grids
        self.wiring = Wiring(model.graph)
        self.types = element_types(model)
        self.floats = frozenset(float_activations(model))
        self.pairs: dict[str, list[onnx.NodeProto]] = {}
        self.done: dict[str, str] = {}
        """Dequantised name of each tensor that has a pair."""

    def choose(self, float_nodes: frozenset[str]) -> list[onnx.NodeProto]:
        """Nodes that compute in int8, in the graph's order."""
        chosen: list[onnx.NodeProto] = []
        given: set[str] = set()
        for node in self.graph.node:
            if node.name not in float_nodes and self._fits(node, given):
                chosen.append(node)
                given.update(node.output)
        return chosen

    def _fits(self, node: onnx.NodeProto, given: set[str]) -> bool:
        """Whether a node gains from int8; `given` are the tensors that have been rounded already.

        A node with weights always does, others only where their inputs come in int8 anyway. A
        join of several tensors is one pass over memory, which one int8 tensor makes worth it.
        """
        taken = [name for name in node.input if name in self.floats]
        if not taken or not self.floats.issuperset(filter(None, node.output)):
            return False
        if node.op_type in WEIGHTED:
            # There is no int8 kernel for transposed convolutions.
            known = weight_axis(node, self.wiring) is not None and node.input[0] in self.floats
            return known and node.op_type != "ConvTranspose"
        if node.op_type in INTEGER_OPERATIONS:
            return given.issuperset(node.input)
        return keeps_range(node) and not given.isdisjoint(taken)

    def surround(self, node: onnx.NodeProto) -> None:
        """Put pairs on what a node takes and gives."""
        if node.op_type in WEIGHTED:
            self._quantise_weights(node)
        for position, name in enumerate(node.input):
            if name in self.floats:
                node.input[position] = self._take(name)
        for position, name in enumerate(node.output):
            if name:
                node.output[position] = self._give(name, node)

    def _take(self, name: str) -> str:
        """The dequantised form of something that a float node or the caller gives."""
        if name not in self.done:
            producer = self.wiring.producers.get(name)
            if producer is not None and self._is_pixels(name, producer):
                self._dequantise(name, producer.input[0], f"{name}/dq", producer.name)
                self.done[name] = f"{name}/dq"
                return self.done[name]
            self._pair(name, name, f"{name}/dq", producer.name if producer else "")
            self.done[name] = f"{name}/dq"
        return self.done[name]

    def _give(self, name: str, node: onnx.NodeProto) -> str:
        """Let the pair give the tensor its name, so that every user takes the rounded values."""
        self._pair(name, f"{name}/float", name, node.name)
        self.done[name] = name
        return f"{name}/float"

    def _grid(self, name: str) -> Grid:
        if name not in self.grids:
            raise uncalibrated(name)
        return self.grids[name]

    def _pair(self, name: str, source: str, target: str, behind: str) -> None:
        names, quantised = [f"{name}/scale", f"{name}/zero"], f"{name}/q"
        node = helper.make_node(
            "QuantizeLinear", [source, *names], [quantised], f"{name}/QuantizeLinear"
        )
        self.pairs.setdefault(behind, []).append(node)
        self._dequantise(name, quantised, target, behind)

    def _dequantise(self, name: str, quantised: str, target: str, behind: str) -> None:
        scale, zero = self._grid(name)
        names = self._constants(name, np.asarray(scale, np.float32), np.asarray(zero, np.uint8))
        node = helper.make_node(
            "DequantizeLinear", [quantised, *names], [target], f"{name}/DequantizeLinear"
        )
        self.pairs.setdefault(behind, []).append(node)

    def _is_pixels(self, name: str, producer: onnx.NodeProto) -> bool:
        """Whether a tensor is uint8 pixels cast to float, which need no rounding to be uint8."""
        return (
            producer.op_type == "Cast"
            and self._grid(name) == Grid(1.0, 0)
            and self.types.get(producer.input[0]) == TensorProto.UINT8
        )

    def _constants(self, name: str, scale: NDArray[np.float32], zero: NDArray[Any]) -> list[str]:
        names = [f"{name}/scale", f"{name}/zero"]
        self.graph.initializer.append(numpy_helper.from_array(scale, names[0]))
        self.graph.initializer.append(numpy_helper.from_array(zero, names[1]))
        return names

    def _quantise_weights(self, node: onnx.NodeProto) -> None:
        """Store a node's weights as int8, its bias as int32."""
        position = WEIGHTED[node.op_type]
        weight = self.wiring.array(node.input[position])
        axis = weight_axis(node, self.wiring)
        assert weight is not None
        assert axis is not None
        activation = self._grid(node.input[0]).scale
        scales = channel_scales(weight, axis, SCALE_FLOOR)
        bias = self.wiring.array(node.input[BIAS]) if len(node.input) > BIAS else None
        if bias is not None and (bias.shape != scales.shape or bias.dtype != np.float32):
            bias = None
        if bias is not None:
            # A channel of tiny weights and a large bias: coarser weights, or its bias overflows.
            least = np.abs(bias) / (activation * BIAS_MAX)
            scales = np.maximum(scales, least).astype(np.float32)
        form = [-1 if i == axis else 1 for i in range(weight.ndim)]
        values = np.clip(np.rint(weight / scales.reshape(form)), -QUANTISED_MAX, QUANTISED_MAX)
        label = f"{node.name}/weight"
        node.input[position] = self._constant(label, values.astype(np.int8), scales, axis)
        if bias is not None:
            product = (scales * np.float32(activation)).astype(np.float32)
            rounded = np.rint(bias / product).astype(np.int32)
            node.input[BIAS] = self._constant(f"{node.name}/bias", rounded, product, 0)

    def _constant(
        self, label: str, values: NDArray[Any], scales: NDArray[np.float32], axis: int
    ) -> str:
        names = self._constants(label, scales, np.zeros(scales.shape, values.dtype))
        self.graph.initializer.append(numpy_helper.from_array(values, f"{label}/q"))
        node = helper.make_node(
            "DequantizeLinear",
            [f"{label}/q", *names],
            [f"{label}/dq"],
            f"{label}/DequantizeLinear",
            axis=axis,
        )
        self.pairs.setdefault("", []).append(node)
        return f"{label}/dq"
