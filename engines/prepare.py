"""Brings a model into the one form that every precision starts from.

Float32 throughout, opset 13 or later, constants as initializers, every node with a name of its
own. What the graph computes stays the same.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from engines.errors import BuildError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

QUANTISE_OPSET = 13
"""From here on DequantizeLinear takes a scale for each channel."""

HALF_OPSET = 19
"""From here on QuantizeLinear takes float16."""

MIN_IR_VERSION = 8

ONNX_DOMAINS = ("", "ai.onnx")


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in the common form.

    Args:
        model: as read from its file; not changed.

    Raises:
        UnsupportedModelError: a weight is NaN or infinite, or the model is quantised already.
        BuildError: its opset is too old and cannot be raised.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    graph = prepared.graph
    quantised = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if quantised:
        raise UnsupportedModelError(
            f"the model is quantised already (node {quantised[0].name or quantised[0].op_type!r}); "
            "give the float model it was made from, or run it as it is with ONNX Runtime"
        )
    _name_nodes(graph)
    _constants_to_initializers(graph)
    _widen(graph)
    _check_weights(graph)
    weights = {w.name for w in graph.initializer}
    inputs = [i for i in graph.input if i.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    prepared.ir_version = max(prepared.ir_version, MIN_IR_VERSION)
    return raised(prepared, QUANTISE_OPSET)


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operations that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), default=0)


def raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at an opset, or itself if its own is as high.

    Raises:
        BuildError: a node cannot be converted.
    """
    if opset_of(model) >= opset:
        return model
    names = {node.output[0]: node.name for node in model.graph.node}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted: onnx.ModelProto = version_converter.convert_version(model, opset)
    # The C++ converter raises these for what it does not know.
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise BuildError(
            f"the model's opset {opset_of(model)} cannot be raised to {opset}: {reason}; "
            "export it with opset 17"
        ) from error
    for node in converted.graph.node:
        node.name = names.get(node.output[0], node.name)
    _name_nodes(converted.graph)
    _constants_to_initializers(converted.graph)
    del converted.graph.value_info[:]
    return converted


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name; from its output, which is unique, where it has none or a double."""
    taken: set[str] = set()
    for node in graph.node:
        output = next(filter(None, node.output), node.op_type)
        name = node.name or f"{node.op_type}:{output}"
        if name in taken:
            name = f"{name}:{output}"
        taken.add(name)
        node.name = name


_PLAIN = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        tensor = _constant(node) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(node)
        else:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
    if len(kept) < len(graph.node):
        rest = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
        del graph.node[:]
        graph.node.extend(rest)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor: onnx.TensorProto = attribute.t
        return tensor
    kind = _PLAIN.get(attribute.name)
    if kind is None:
        return None
    return numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), kind))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _widen(graph: onnx.GraphProto) -> None:
    """Turn float16 into float32 everywhere; the values stay, so the model says the same."""
    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    for tensor in _tensors(graph):
        if tensor.data_type == half:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = full
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == half:
                attribute.i = full
            if attribute.HasField("g"):
                _widen(attribute.g)


def _check_weights(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE) and not bool(
            np.isfinite(numpy_helper.to_array(tensor)).all()
        ):
            raise UnsupportedModelError(
                f"weight {tensor.name!r} holds NaN or infinite values; "
                "the model is damaged: export it again from a sound checkpoint"
            )
