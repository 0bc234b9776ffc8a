"""Q/DQ graphs as OpenVINO computes them right.

It runs int8 convolutions on unsigned inputs. Signed ones it shifts itself, and wrongly in places:
with OpenVINO 2026.4 a 1x1 convolution behind a Concat of signed values gives an answer that has
nothing to do with the right one (signal to noise 2 dB instead of 50). Shifted here, all is right,
and it is faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    import onnx

ZERO_NAME = "vigia/zero_point_128"
ZERO_POINT = 128
"""uint8 value of 0.0: the same 256 levels as int8 with zero point 0."""


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make int8 activations uint8 with zero point 128; weights stay int8.

    Args:
        model: with Q/DQ pairs; changed in place and returned. Pairs with several scales, with
            another zero point than 0 or whose values are used by others than DequantizeLinear are
            left as they are.
    """
    graph = model.graph
    constants = {w.name: w for w in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    results = {output.name for output in graph.output}
    shifted = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        readers = users.get(node.output[0], [])
        private = node.output[0] not in results and all(
            reader.op_type == "DequantizeLinear" for reader in readers
        )
        if private and _is_signed(node, constants):
            shifted.add(node.output[0])
            for each in (node, *readers):
                each.input[2] = ZERO_NAME
    if shifted:
        zero = numpy_helper.from_array(np.array(ZERO_POINT, np.uint8), ZERO_NAME)
        graph.initializer.append(zero)
        # What was recorded of these tensors' type is no longer true.
        kept = [value for value in graph.value_info if value.name not in shifted]
        del graph.value_info[:]
        graph.value_info.extend(kept)
    return model


def _is_signed(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether a pair has one scale, and int8 zero as its zero point."""
    if len(node.input) <= 2 or any(name not in constants for name in node.input[1:]):  # noqa: PLR2004 - x, scale, zero point
        return False
    scale, zero = (constants[name] for name in node.input[1:])
    return (
        not scale.dims
        and not zero.dims
        and zero.data_type == TensorProto.INT8
        and not numpy_helper.to_array(zero).any()
    )
