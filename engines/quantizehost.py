"""Puts Q/DQ pairs into a float32 graph as ONNX Runtime's CPU kernels need them.

TensorRT finds out by itself what fuses and where int8 values travel on; ONNX Runtime runs an
operation in int8 only if a pair stands on each of its inputs and outputs. So the same ranges and
the same float nodes lead to a graph with more pairs here:

- on what a convolution gives, not only on what it takes, and around the activation behind it;
- biases as int32 of the product of both scales;
- activations as uint8 with zero point 128: the same values as int8 with zero point 0, in the form
  that x86's dot product instructions multiply;
- weights as stored int8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.quantize import (
    SCALE_FLOOR,
    channel_scales,
    interleave,
    keeps_range,
    scale_of,
    shared_ranges,
    weight_axis,
)
from engines.ranges import QUANTISED_MAX
from engines.weights import WEIGHTED
from engines.wiring import Wiring, float_activations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ZERO_POINT = 128
"""uint8 value of 0.0."""

INTEGER_OPERATIONS = frozenset(
    {"Add", "Mul", "Sigmoid", "LeakyRelu", "GlobalAveragePool", "AveragePool"}
)
"""Operations, beside those with weights and those that keep ranges, with an int8 kernel."""

BIAS = 2
"""Place of the bias among a node's inputs."""

BIAS_MAX = 2.0**30
"""Largest quantised bias; leaves as much room for the products added to it."""


def insert_host(
    model: onnx.ModelProto, amax: Mapping[str, float], float_nodes: frozenset[str]
) -> onnx.ModelProto:
    """Put the pairs in; see `engines.quantize.insert` for arguments and errors."""
    work = _Host(model, shared_ranges(model, amax, float_nodes))
    chosen = work.choose(float_nodes)
    for node in chosen:
        work.surround(node)
    for node in chosen:
        if node.op_type in WEIGHTED:
            work.quantise_weights(node)
    interleave(model.graph, work.pairs)
    return model


class _Host:
    """One graph while pairs are put in."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, float]) -> None:
        self.graph = model.graph
        self.ranges = ranges
        self.wiring = Wiring(model.graph)
        self.floats = frozenset(float_activations(model))
        self.pairs: dict[str, list[onnx.NodeProto]] = {}
        self.done: dict[str, str] = {}
        """Dequantised name of each tensor that has a pair."""
        self.weights: dict[tuple[str, ...], str] = {}

    def choose(self, float_nodes: frozenset[str]) -> list[onnx.NodeProto]:
        """Nodes that compute in int8, in the graph's order."""
        chosen: list[onnx.NodeProto] = []
        given: set[str] = set()
        for node in self.graph.node:
            if node.name in float_nodes:
                continue
            taken = [n for n in node.input if n in self.floats]
            if not taken or not self.floats.issuperset(filter(None, node.output)):
                continue
            if node.op_type in WEIGHTED:
                fits = (
                    node.op_type != "ConvTranspose"
                    and weight_axis(node, self.wiring) is not None
                    and node.input[0] in self.floats
                )
            elif node.op_type in INTEGER_OPERATIONS:
                fits = given.issuperset(node.input)
            else:
                fits = keeps_range(node) and given.issuperset(taken)
            if fits:
                chosen.append(node)
                given.update(node.output)
        return chosen

    def surround(self, node: onnx.NodeProto) -> None:
        """Put pairs on what a node takes and gives."""
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
            self._pair(name, name, f"{name}/dq", producer.name if producer else "")
            self.done[name] = f"{name}/dq"
        return self.done[name]

    def _give(self, name: str, node: onnx.NodeProto) -> str:
        """Let the pair give the tensor its name, so that every user takes the rounded values."""
        self._pair(name, f"{name}/float", name, node.name)
        self.done[name] = name
        return f"{name}/float"

    def _pair(self, name: str, source: str, target: str, behind: str) -> None:
        scale = np.float32(scale_of(name, self.ranges, SCALE_FLOOR))
        names = self._constants(name, np.asarray(scale), np.asarray(ZERO_POINT, np.uint8))
        make = helper.make_node
        self.pairs.setdefault(behind, []).extend(
            [
                make("QuantizeLinear", [source, *names], [f"{name}/q"], f"{name}/QuantizeLinear"),
                make(
                    "DequantizeLinear", [f"{name}/q", *names], [target], f"{name}/DequantizeLinear"
                ),
            ]
        )

    def _constants(self, name: str, scale: NDArray[np.float32], zero: NDArray[Any]) -> list[str]:
        names = [f"{name}/scale", f"{name}/zero"]
        for text, value in zip(names, (scale, zero), strict=True):
            self.graph.initializer.append(numpy_helper.from_array(value, text))
        return names

    def quantise_weights(self, node: onnx.NodeProto) -> None:
        """Store a node's weights as int8, its bias as int32."""
        position = WEIGHTED[node.op_type]
        name = node.input[position]
        weight = self.wiring.array(name)
        axis = weight_axis(node, self.wiring)
        assert weight is not None
        assert axis is not None
        taken = node.input[0].removesuffix("/dq")
        activation = scale_of(taken, self.ranges, SCALE_FLOOR)
        scales = channel_scales(weight, axis, SCALE_FLOOR)
        bias = self.wiring.array(node.input[2]) if len(node.input) > BIAS else None
        fits = bias is not None and bias.shape == scales.shape and bias.dtype == np.float32
        if bias is not None and fits:
            # A channel of tiny weights and a large bias: coarser weights, or its bias overflows.
            scales = np.maximum(scales, np.abs(bias) / (activation * BIAS_MAX)).astype(np.float32)
        label = f"{node.name}/weight"
        form = [-1 if i == axis else 1 for i in range(weight.ndim)]
        values = np.rint(weight / scales.reshape(form))
        values = np.clip(values, -QUANTISED_MAX, QUANTISED_MAX).astype(np.int8)
        node.input[position] = self._constant(label, values, scales, axis)
        if bias is not None and fits:
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
