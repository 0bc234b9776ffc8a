"""Turns a float32 graph into a typed float16 one: types are in the graph, not in a flag.

A strongly typed network computes in what its ONNX file says, so what is to stay in float32 is
written there too: decoding of boxes (float16 tells coordinates above 512 pixels apart in steps of
half a pixel), regions that leave its range, and operations that have no float16 form. Casts stand
at the borders. Inputs and outputs of the graph keep their types, so whoever runs it sees no
difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.errors import UnsupportedModelError
from engines.graph import PREFIX
from engines.prepare import HALF_OPSET, raised

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

FULL = TensorProto.FLOAT
HALF = TensorProto.FLOAT16

HALF_MAX = float(np.finfo(np.float16).max)
"""65504; a larger weight would become infinite."""

MIN_SCALE = float(np.finfo(np.float16).smallest_normal)
"""6.1e-5. Smaller scales lose digits, and those below 3e-8 become 0, which TensorRT refuses."""

NO_HALF = frozenset(
    {
        "ConstantOfShape",
        "CumSum",
        "EyeLike",
        "NonMaxSuppression",
        "Range",
        "RoiAlign",
        "TopK",
        "Upsample",
    }
)
"""Operations that stay in float32: their float16 form is missing, or their result's type does not
follow from their input's."""

FULL_INPUTS = {"Resize": (1, 2)}
"""Inputs that are float32 whatever the first one is: regions and scales."""

CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})

SCALE = 1
"""Input of QuantizeLinear and DequantizeLinear."""


def to_half(model: onnx.ModelProto, keep_full: Collection[str]) -> onnx.ModelProto:
    """A typed float16 form of a model.

    Args:
        model: float32, in the form of `engines.prepare`, with or without Q/DQ nodes; not changed.
        keep_full: names of nodes that stay in float32.

    Returns:
        A model of opset 19 or later that takes and gives the same types.

    Raises:
        UnsupportedModelError: it has control flow, whose inner graphs are not converted.
        BuildError: its opset cannot be raised.
    """
    control = next((n for n in model.graph.node if n.op_type in CONTROL), None)
    if control is not None:
        raise UnsupportedModelError(
            f"node {control.name!r} is control flow ({control.op_type}), which has no float16 "
            "form here; export the model without it, or use fp32 or int8"
        )
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return _Conversion(raised(copied, HALF_OPSET), frozenset(keep_full)).run()


class _Conversion:
    """One conversion; `types` knows which form of a tensor its producer gives."""

    def __init__(self, model: onnx.ModelProto, keep_full: frozenset[str]) -> None:
        self._model = model
        self._keep_full = keep_full
        graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self._weights = {w.name: w for w in graph.initializer}
        self._types.update({w.name: w.data_type for w in graph.initializer})
        self._halved = {name: False for name, kind in self._types.items() if kind == FULL}
        self._casts: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        outputs = {o.name for o in graph.output if self._types.get(o.name) == FULL}
        for node in list(graph.node):
            half = self._is_half(node)
            self._convert_inputs(node, half=half)
            if half:
                self._convert_type(node)
            self._nodes.append(node)
            for place, name in enumerate(node.output):
                # A tensor that shape inference does not know has no consumer that cares.
                if half and self._types.get(name) == FULL:
                    if name in outputs:
                        node.output[place] = _half_name(name)
                    self._halved[name] = True
        for name in outputs:
            if self._halved[name]:
                self._nodes.append(_cast(_half_name(name), name, FULL))
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in self._nodes]
        del graph.node[:]
        graph.node.extend(kept)
        del graph.value_info[:]
        self._drop_unused()
        return self._model

    def _is_half(self, node: onnx.NodeProto) -> bool:
        return not (
            node.name in self._keep_full
            or node.name.startswith(PREFIX)
            or node.op_type in NO_HALF
            or any(self._overflows(name) for name in node.input)
        )

    def _overflows(self, name: str) -> bool:
        weight = self._weights.get(name)
        if weight is None or weight.data_type != FULL:
            return False
        return bool((np.abs(numpy_helper.to_array(weight)) > HALF_MAX).any())

    def _convert_inputs(self, node: onnx.NodeProto, *, half: bool) -> None:
        scales = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for place, name in enumerate(node.input):
            if self._types.get(name) != FULL:
                continue
            wanted = half and place not in FULL_INPUTS.get(node.op_type, ())
            if wanted and scales and place == SCALE:
                self._convert_scale(node)
            elif name in self._weights:
                if wanted:
                    node.input[place] = self._half_weight(name)
            elif wanted != self._halved[name]:
                node.input[place] = self._casted(name, half=wanted)
            elif wanted and self._is_output(name):
                node.input[place] = _half_name(name)

    def _convert_type(self, node: onnx.NodeProto) -> None:
        """Attributes that name the result's type, and constants inside nodes."""
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == FULL:
                attribute.i = HALF
            if attribute.HasField("t") and attribute.t.data_type == FULL:
                value = numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))

    def _convert_scale(self, node: onnx.NodeProto) -> None:
        """Give a node its scale in float16, and its int8 weights in steps of that scale."""
        name = node.input[SCALE]
        exact = numpy_helper.to_array(self._weights[name])
        rounded = np.maximum(exact, MIN_SCALE).astype(np.float16)
        node.input[SCALE] = self._added(name, rounded)
        weight = self._weights.get(node.input[0])
        if weight is None or node.op_type != "DequantizeLinear":
            return
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        values = numpy_helper.to_array(weight)
        shape = [-1 if exact.size > 1 and d == axis else 1 for d in range(values.ndim)]
        ratio = (exact / rounded.astype(np.float32)).reshape(shape)
        steps = np.clip(np.rint(values * ratio), -127, 127).astype(values.dtype)
        node.input[0] = self._added(weight.name, steps)

    def _half_weight(self, name: str) -> str:
        return self._added(name, numpy_helper.to_array(self._weights[name]).astype(np.float16))

    def _added(self, name: str, value: NDArray[np.generic]) -> str:
        new = _half_name(name)
        if new not in self._types:
            self._model.graph.initializer.append(numpy_helper.from_array(value, new))
            self._types[new] = HALF
        return new

    def _casted(self, name: str, *, half: bool) -> str:
        """The tensor in the other type, converted once however many nodes want it."""
        source = _half_name(name) if self._halved[name] and self._is_output(name) else name
        new = _half_name(name) if half else name + "/full"
        if new not in self._casts:
            self._casts.add(new)
            self._nodes.append(_cast(source, new, HALF if half else FULL))
        return new

    def _is_output(self, name: str) -> bool:
        return any(o.name == name for o in self._model.graph.output)

    def _drop_unused(self) -> None:
        graph = self._model.graph
        used = {name for node in graph.node for name in node.input}
        used |= {o.name for o in graph.output}
        kept = [w for w in graph.initializer if w.name in used]
        kept = [onnx.TensorProto.FromString(w.SerializeToString()) for w in kept]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _half_name(name: str) -> str:
    return name + "/half"


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{PREFIX}cast:{target}", to=to)
