"""What a graph that ONNX Runtime has optimised computes in: proof instead of hope.

Quantise and dequantise nodes that the runtime did not fuse leave the operation between them in
floating point; float16 weights without a float16 kernel are cast to float32. Only the optimised
graph shows either.
"""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import TensorProto

from engines.weights import INT8_SHARE

INTEGER = {
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}
"""Operations that multiply integers; ONNX's own and the runtime's."""

FLOATING = {
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gemm",
    "MatMul",
    "NhwcFusedConv",
}
"""Operations with weights as their second input that multiply in the type of these."""

NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}


def computed(model: onnx.ModelProto) -> str:
    """Name the precision of an optimised graph.

    Returns:
        "int8" if more than half of the operations with weights multiply integers; else their common
        type, "mixed" if they have none, and "" if there are no such operations.
    """
    types: dict[str, int] = {w.name: w.data_type for w in model.graph.initializer}
    for node in model.graph.node:
        # The type of a cast or dequantised weight; of all other results it does not matter here.
        if node.op_type == "Cast":
            types[node.output[0]] = next(a.i for a in node.attribute if a.name == "to")
        elif node.op_type == "DequantizeLinear":
            types[node.output[0]] = types.get(node.input[1], TensorProto.FLOAT)
    kinds: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in INTEGER:
            kinds["int8"] += 1
        elif node.op_type in FLOATING and types.get(node.input[1]) in NAMES:
            kinds[NAMES[types[node.input[1]]]] += 1
    total = sum(kinds.values())
    if kinds["int8"] > INT8_SHARE * total:
        return "int8"
    return next(iter(kinds), "") if len(kinds) < 2 else "mixed"  # noqa: PLR2004 - one kind or none
