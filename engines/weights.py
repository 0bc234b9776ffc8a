"""Looks at a graph's weights and last operations."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    import onnx

WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operations with weights, and which input these are."""

INTEGER = {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"}

NORMALISING = {"Softmax", "Sigmoid", "HardSigmoid"}

KEEPING = {
    "Cast",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operations that change a tensor's form or type, but not what its values mean."""

INT8_SHARE = 0.5
"""A model counts as int8 if more than this share of its weighted operations is."""


def precision_of(model: onnx.ModelProto) -> str:
    """What the weights are: "fp32", "fp16", "int8" or "mixed"."""
    graph = _Graph(model)
    kinds = Counter(kind for kind in map(graph.weights_of, model.graph.node) if kind)
    total = sum(kinds.values())
    if kinds["int8"] > INT8_SHARE * total:
        return "int8"
    for kind in ("fp32", "fp16"):
        if kinds[kind] == total > 0:
            return kind
    if total:
        return "mixed"
    element = model.graph.input[0].type.tensor_type.elem_type
    return "fp16" if element == TensorProto.FLOAT16 else "fp32"


class _Graph:
    """Which node gives a tensor, and of which type a constant is."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.constants: dict[str, int] = {t.name: t.data_type for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    self.constants[node.output[0]] = attribute.t.data_type

    def weights_of(self, node: onnx.NodeProto) -> str:
        """Type of a node's weights; "" if it has none."""
        if node.op_type in INTEGER:
            return "int8"
        place = WEIGHTED.get(node.op_type)
        if place is None or len(node.input) <= place:
            return ""
        name, quantized = node.input[place], False
        # Through what turns a stored weight into a used one; no longer than the graph has nodes.
        for _ in self.producers:
            producer = self.producers.get(name)
            if name in self.constants or producer is None or producer.op_type not in KEEPING:
                break
            quantized |= producer.op_type == "DequantizeLinear"
            name = producer.input[0]
        if name not in self.constants:
            return ""
        known: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
        return "int8" if quantized else known.get(self.constants[name], "other")


def is_normalised(model: onnx.ModelProto, output: str) -> bool:
    """Whether an output comes out of a softmax or sigmoid, so that its values are probabilities."""
    producers = {name: node for node in model.graph.node for name in node.output}
    name = output
    for _ in range(len(producers)):
        node = producers.get(name)
        if node is None:
            return False
        if node.op_type in NORMALISING:
            return True
        if node.op_type not in KEEPING:
            return False
        name = node.input[0]
    return False
