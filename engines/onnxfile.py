"""Reads an ONNX file that may be anything, and looks up facts in its graph."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from engines.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_BYTES = 2**31 - 1
"""What a Protocol Buffers message, and so a self-contained ONNX file, can hold."""

SMALL_ELEMENTS = 4096
"""Constants up to this size take part in shape inference: shapes are smaller, weights larger."""

HINT = "export the model again, or copy the file again"

Shape = tuple["int | None", ...]
"""Sizes of a tensor's dimensions; None where the file leaves one open."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelFile:
    """A file that was read and parsed.

    Attributes:
        path: where it was read from.
        digest: "sha256:" + hex digest of its bytes.
        model: its content; self-contained, and every tensor a node reads is defined.
    """

    path: Path
    digest: str
    model: onnx.ModelProto


def read_model(path: Path | str) -> ModelFile:
    """Read and check a file.

    Raises:
        ModelFileError: it is missing, unreadable, empty, too big, truncated, not ONNX, or keeps its
            weights in other files.
    """
    path = Path(path)
    content = _read_bytes(path)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelFileError(f"{path} is not an ONNX file, or is truncated; {HINT}") from error
    # Arbitrary bytes can happen to parse; a message cut between two fields does.
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise ModelFileError(f"{path} is not an ONNX file, or is truncated; {HINT}")
    if not _is_sound(model):
        raise ModelFileError(f"{path} is damaged: it has unreadable texts or types; {HINT}")
    if any(t.data_location == TensorProto.EXTERNAL for t in _tensors(model.graph)):
        raise ModelFileError(
            f"{path} keeps its weights in other files (external data); export it as one file"
        )
    missing = _undefined(model.graph)
    if missing:
        raise ModelFileError(f"{path} is damaged: nothing gives its tensor {missing!r}; {HINT}")
    return ModelFile(path, "sha256:" + hashlib.sha256(content).hexdigest(), model)


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder; give the path of an ONNX file in it")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelFileError(
                f"{path} has {size} bytes; an ONNX file has {MAX_FILE_BYTES} at the most"
            )
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no model file {path}; check models.<slot>.path") from error
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {error.strerror}") from error
    if not content:
        raise ModelFileError(f"{path} is empty; {HINT}")
    return content


def _is_sound(model: onnx.ModelProto) -> bool:
    """Whether all texts are UTF-8 and all types exist, which parsing does not check."""
    graph = model.graph
    values = [*graph.input, *graph.output]
    try:
        texts = [graph.name, *(o.domain for o in model.opset_import)]
        for entry in model.metadata_props:
            texts += (entry.key, entry.value)
        for node in graph.node:
            texts += (node.name, node.op_type, node.domain, *node.input, *node.output)
            texts += (attribute.name for attribute in node.attribute)
        texts += (named.name for named in (*values, *graph.initializer))
        for value in values:
            texts += (d.dim_param for d in value.type.tensor_type.shape.dim)
    except UnicodeDecodeError:
        return False
    types = {v.type.tensor_type.elem_type for v in values}
    types.update(t.data_type for t in graph.initializer)
    # Some versions of Protocol Buffers give a text that is not UTF-8 as bytes.
    known = set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}
    return all(isinstance(t, str) for t in texts) and types <= known


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of the graph, and of graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _undefined(graph: onnx.GraphProto) -> str:
    """Name of a tensor that is read but not given, or ""."""
    known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    known.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        for name in node.input:
            if name not in known:
                return str(name)
        known.update(node.output)
    return next((o.name for o in graph.output if o.name not in known), "")


def image_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must feed; old files list the weights among the inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in weights]


def shape_of(value: onnx.ValueInfoProto) -> Shape | None:
    """The declared shape, or None if not even the number of dimensions is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)


def infer_output_shapes(model: onnx.ModelProto, sizes: Shape) -> dict[str, Shape | None]:
    """Work out the outputs' shapes for one input size.

    Args:
        model: not changed.
        sizes: [batch, 3, height, width] of the image input.

    Returns:
        Shapes by output name, as far as ONNX's shape inference gets.
    """
    source = model.graph
    skeleton = onnx.ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = source.name
    graph.node.extend(source.node)
    (image,) = image_inputs(model)
    element = image.type.tensor_type.elem_type
    graph.input.append(onnx.helper.make_tensor_value_info(image.name, element, list(sizes)))
    for tensor in source.initializer:
        elements = 1
        for size in tensor.dims:
            elements *= size
        if elements <= SMALL_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            # A weight's values do not matter, only its shape; copying them would cost seconds.
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    for output in source.output:
        # Without the declared shape, whose open dimensions would stay open.
        element = output.type.tensor_type.elem_type
        graph.output.append(onnx.helper.make_tensor_value_info(output.name, element, None))
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        # What a graph does that the inference does not know, stays open.
        return {output.name: None for output in source.output}
    return {output.name: shape_of(output) for output in inferred.graph.output}
