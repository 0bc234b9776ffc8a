"""Runs graphs as they stand in their files, without any of our preparation, and looks inside them.

This is what other programs do with the same file, so it is what ours is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from engines.errors import BackendError, InferenceError
from engines.ort import ORT_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ERROR_SEVERITY = 3

CHUNK = 16
"""Intermediate tensors taken at a time: those of a large input are tens of megabytes each."""


class PlainModel:
    """A loaded graph.

    Args:
        model: any graph that ONNX Runtime takes; not changed.
        threads: cores to use.
        wanted: tensors to give beside the outputs; the graph is then run without optimisation,
            since fused nodes have no tensors between them.

    Raises:
        BackendError: the runtime refuses it.
    """

    def __init__(
        self, model: onnx.ModelProto, *, threads: int = 1, wanted: Sequence[str] = ()
    ) -> None:
        settings = ort.SessionOptions()
        settings.log_severity_level = ERROR_SEVERITY
        settings.intra_op_num_threads = threads
        if wanted:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            tapped = onnx.ModelProto()
            tapped.CopyFrom(model)
            there = {output.name for output in model.graph.output}
            tapped.graph.output.extend(
                onnx.ValueInfoProto(name=name) for name in wanted if name not in there
            )
            model = tapped
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime refuses the model as it is: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Give every output by name.

        Raises:
            InferenceError: the runtime failed.
        """
        try:
            values = self._session.run(None, dict(feeds))
        except ORT_ERRORS as error:
            raise InferenceError(f"ONNX Runtime failed: {error}") from error
        return dict(zip(self._outputs, values, strict=True))


@dataclass(frozen=True, slots=True)
class Difference:
    """The first node at which two graphs part.

    Attributes:
        node: its name, or its output's where it has none.
        op: its operation.
        relative: largest difference, by the largest magnitude of the first graph's tensor.
        compared: tensors that were compared up to here.
    """

    node: str
    op: str
    relative: float
    compared: int


def first_difference(
    first: onnx.ModelProto,
    second: onnx.ModelProto,
    feeds: tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]],
    limit: float,
) -> Difference | None:
    """Compare the tensors that two graphs call the same, in the order of the first.

    Args:
        first: the reference.
        second: the other one.
        feeds: for the first and for the second.
        limit: relative difference that is still the same.

    Returns:
        Where they part, or None if they do not, or have no names in common.

    Raises:
        EngineError: a graph cannot be run.
    """
    theirs = {name for node in second.graph.node for name in node.output if name}
    common = [
        (node, name) for node in first.graph.node for name in node.output if name and name in theirs
    ]
    compared = 0
    for start in range(0, len(common), CHUNK):
        chunk = common[start : start + CHUNK]
        names = [name for _, name in chunk]
        a = PlainModel(first, wanted=names).run(feeds[0])
        b = PlainModel(second, wanted=names).run(feeds[1])
        for node, name in chunk:
            if not np.issubdtype(a[name].dtype, np.floating):
                continue
            compared += 1
            relative = relative_difference(a[name], b[name])
            if relative > limit:
                return Difference(node.name or name, node.op_type, relative, compared)
    return None


def relative_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """`max |a - b| / max |a|`; infinite for other shapes, and where one is not finite."""
    if a.shape != b.shape:
        return float("inf")
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)):
        return float("inf")
    largest = float(np.abs(x[finite]).max(initial=0.0))
    apart = float(np.abs(x[finite] - y[finite]).max(initial=0.0))
    return apart / max(largest, float(np.finfo(np.float32).tiny)) if apart else 0.0


def feed(model: onnx.ModelProto, name: str, image: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """An image as a graph's input takes it: in its type, repeated for its fixed batch.

    Args:
        model: the graph.
        name: of the image input.
        image: float32 [1, 3, H, W].
    """
    tensor = next(i for i in model.graph.input if i.name == name).type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    batch = tensor.shape.dim[0].dim_value or 1
    return {name: np.repeat(image, batch, axis=0).astype(dtype)}
