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
    producers = {name: node for node in model.graph.node for name in node.output}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            types.update(
                (node.output[0], a.t.data_type) for a in node.attribute if a.name == "value"
            )
    kinds: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in INTEGER:
            kinds["int8"] += 1
        elif node.op_type in WEIGHTED and len(node.input) > WEIGHTED[node.op_type]:
            kind = _kind(node.input[WEIGHTED[node.op_type]], producers, types)
            kinds[kind] += kind != ""
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


def _kind(name: str, producers: dict[str, onnx.NodeProto], types: dict[str, int]) -> str:
    """Type of a weight, through what turns a stored into a used one; "" if it is no weight."""
    # A chain of producers cannot be longer than the graph has nodes.
    for _ in range(len(producers) + 1):
        node = producers.get(name)
        if node is None or node.op_type == "Constant":
            break
        if node.op_type == "DequantizeLinear":
            return "int8" if _is_constant(name, producers, types) else ""
        if node.op_type not in KEEPING:
            return ""
        name = node.input[0]
    element = types.get(name)
    known: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
    return "" if element is None else known.get(element, "other")


def _is_constant(name: str, producers: dict[str, onnx.NodeProto], types: dict[str, int]) -> bool:
    for _ in range(len(producers) + 1):
        if name in types:
            return True
        node = producers.get(name)
        if node is None or not node.input:
            return False
        name = node.input[0]
    return False


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
