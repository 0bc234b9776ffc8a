"""Who gives and who takes each tensor of a graph, and what is constant in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Wiring:
    """An index of a graph as it was when this was made.

    Args:
        graph: not changed, and not to be changed while the index is used.

    Attributes:
        producers: the node that gives a tensor.
        consumers: the nodes that take a tensor, in the graph's order, each once.
        weights: initializers by name.
        outputs: names of the graph's outputs.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.weights: dict[str, onnx.TensorProto] = {w.name: w for w in graph.initializer}
        self.outputs = frozenset(o.name for o in graph.output)
        for node in graph.node:
            self.producers.update(dict.fromkeys(filter(None, node.output), node))
            for name in dict.fromkeys(filter(None, node.input)):
                self.consumers.setdefault(name, []).append(node)

    def parents(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Nodes that give what a node takes."""
        return [self.producers[name] for name in node.input if name in self.producers]

    def children(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Nodes that take what a node gives."""
        return [user for name in node.output for user in self.consumers.get(name, ())]

    def array(self, name: str) -> NDArray[Any] | None:
        """A constant's values; None if the tensor is computed."""
        weight = self.weights.get(name)
        return None if weight is None else numpy_helper.to_array(weight)

    def is_float(self, name: str) -> bool:
        """Whether a constant holds float32 values."""
        weight = self.weights.get(name)
        return weight is not None and weight.data_type == TensorProto.FLOAT


def float_activations(model: onnx.ModelProto) -> list[str]:
    """Names of computed float32 tensors, in the graph's order, as far as types can be told."""
    types = {v.name: v.type.tensor_type.elem_type for v in _inferred(model)}
    order = [i.name for i in model.graph.input]
    order += [name for node in model.graph.node for name in node.output]
    return [name for name in order if types.get(name) == TensorProto.FLOAT]


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """`TensorProto` element types by tensor name, as far as they can be told."""
    types = {w.name: w.data_type for w in model.graph.initializer}
    types.update((v.name, v.type.tensor_type.elem_type) for v in _inferred(model))
    return types


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Shapes of computed tensors by name, as far as they can be told; an open batch counts as 1."""
    found = {}
    for value in _inferred(model, batch=1):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            sizes = (d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
            found[value.name] = tuple(sizes)
    return found


def _inferred(model: onnx.ModelProto, batch: int | None = None) -> list[onnx.ValueInfoProto]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if batch is not None:
        for value in copy.graph.input:
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = batch
    # What a graph does that the inference does not know, stays untold.
    with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError):
        copy = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    graph = copy.graph
    return [*graph.input, *graph.value_info, *graph.output]
