"""OpenVINO: an optional engine for processors. With its backend the sole importer of openvino.

It writes no files: its own model cache is not used, since it would be unsealed.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from engines.base import TensorSpec
from engines.errors import BackendError, InferenceError
from engines.weights import INT8_SHARE

# `import openvino` imports its converter, which reports each use to its maker over the network and
# keeps an identity in the home folder. Nothing here converts; without it nothing is sent.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402 - after its converter was put out of reach

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.backend import Precision, RunOptions

DEVICE = "CPU"

OV_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    ov.frontend.GeneralFailure,
    ov.frontend.InitializationFailure,
    ov.frontend.NotImplementedFailure,
    ov.frontend.OpConversionFailure,
    ov.frontend.OpValidationFailure,
)
"""What the library raises; its own classes have no common base."""

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""What floating-point operations may be done in; int8 comes from the graph's Q/DQ nodes."""

WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
"""Kinds of layers, in the library's words, that an engine's precision is judged by."""

KINDS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}


NOISE = (
    "Exception from",
    "Check '",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "Summary:",
    "To facilitate",
    "While validating",
)
"""Beginnings of lines that stand around what the library's messages say."""

MAX_REASONS = 3


class OpenVinoContext:
    """Input arrays of one thread, read by the library where they are, and its outputs."""

    def __init__(self, engine: OpenVinoEngine, compiled: ov.CompiledModel, batch: int) -> None:
        self.inputs: dict[str, NDArray[Any]] = {}
        self._fixed: dict[str, NDArray[Any]] = {}
        self._open: dict[str, int] = {}
        try:
            self._request: ov.InferRequest | None = compiled.create_infer_request()
            self._bind(self._request, engine, batch)
        except MemoryError as error:
            raise InferenceError(
                f"not enough memory for the inputs and outputs of batches of {batch}"
            ) from error
        except OV_ERRORS as error:
            raise InferenceError(f"OpenVINO makes no context: {_reason(error)}") from error

    def _bind(self, request: ov.InferRequest, engine: OpenVinoEngine, batch: int) -> None:
        for index, spec in enumerate(engine.inputs):
            shape = _shape(spec, batch)
            if None in shape or shape[0] != batch:
                raise InferenceError(
                    f"the model takes {spec.name} of shape {list(spec.shape)}, "
                    f"not batches of {batch}"
                )
            self.inputs[spec.name] = array = np.zeros([n or 0 for n in shape], spec.dtype)
            request.set_input_tensor(index, ov.Tensor(array, shared_memory=True))
        for index, spec in enumerate(engine.outputs):
            shape = _shape(spec, batch)
            if None in shape:
                self._open[spec.name] = index
                continue
            self._fixed[spec.name] = array = np.zeros([n or 0 for n in shape], spec.dtype)
            request.set_output_tensor(index, ov.Tensor(array, shared_memory=True))

    def infer(self) -> Mapping[str, NDArray[Any]]:
        """Run the model; see `engines.base.Context`."""
        request = self._request
        if request is None:
            raise InferenceError("the context is closed")
        try:
            request.infer(None, share_inputs=True, share_outputs=True)
            if not self._open:
                return self._fixed
            values = {n: request.get_output_tensor(i).data for n, i in self._open.items()}
        except OV_ERRORS as error:
            raise InferenceError(f"OpenVINO failed: {_reason(error)}") from error
        return {**self._fixed, **values}

    def close(self) -> None:
        """Release the request; the arrays go with their last user."""
        self._request = None


class OpenVinoEngine:
    """A model compiled by OpenVINO."""

    backend = "openvino"

    def __init__(
        self, compiled: ov.CompiledModel, graph: onnx.GraphProto, precision: str, lanes: int
    ) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self.precision = precision
        self.lanes = lanes
        # The library keeps the order of the file, but where it drops a node that does nothing, a
        # tensor has several names.
        weights = {weight.name for weight in graph.initializer}
        inputs = [i.name for i in graph.input if i.name not in weights]
        self.inputs = tuple(map(_spec, inputs, compiled.inputs))
        self.outputs = tuple(map(_spec, [o.name for o in graph.output], compiled.outputs))

    def create_context(self, batch: int) -> OpenVinoContext:
        """See `engines.base.Engine`."""
        if self._compiled is None:
            raise InferenceError("the engine is closed")
        return OpenVinoContext(self, self._compiled, batch)

    def close(self) -> None:
        """Drop the compiled model; the library frees it with the last context."""
        self._compiled = None


def version() -> str:
    """The library's version and build."""
    return str(ov.get_version())


def capabilities() -> tuple[str, ...]:
    """What the library says this processor computes in itself, e.g. "FP32", "BF16", "INT8".

    Raises:
        BackendError: the library does not work here.
    """
    try:
        return tuple(ov.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
    except OV_ERRORS as error:
        raise BackendError(f"OpenVINO does not work here: {_reason(error)}") from error


def load(model: bytes, precision: Precision, options: RunOptions) -> OpenVinoEngine:
    """Compile a serialized ONNX model.

    Args:
        model: a self-contained ONNX file's bytes.
        precision: what floating-point operations may be done in; "int8" needs a Q/DQ graph.
        options: arrangement and threads.

    Raises:
        BackendError: the library refuses the model.
    """
    throughput = options.arrangement == "throughput"
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
        "NUM_STREAMS": options.threads if throughput else 1,
        "INFERENCE_NUM_THREADS": options.threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        # Fixed to cores, the threads of two engines would meet on the first ones.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = ov.Core()
        compiled = core.compile_model(core.read_model(model), DEVICE, settings)
        proven = computed(compiled)
    except OV_ERRORS as error:
        raise BackendError(f"OpenVINO refuses the model: {_reason(error)}") from error
    graph = onnx.load_from_string(model).graph
    return OpenVinoEngine(compiled, graph, proven, options.threads if throughput else 1)


def computed(compiled: ov.CompiledModel) -> str:
    """Name the precision of what was compiled, from the layers that the library will run.

    Returns:
        "int8", "bf16" or "fp16" if more than half of the layers with weights compute in it, "fp32"
        if all do, else "mixed".
    """
    kinds: Counter[str] = Counter()
    for layer in compiled.get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if facts["layerType"].astype(str) in WEIGHTED:
            kind = facts["runtimePrecision"].astype(str)
            kinds[KINDS.get(kind, kind)] += 1
    total = sum(kinds.values())
    for kind, count in kinds.items():
        if kind != "fp32" and count > INT8_SHARE * total:
            return kind
    return "fp32" if kinds["fp32"] == total else "mixed"


def _spec(name: str, port: ov.ConstOutput) -> TensorSpec:
    if name not in port.get_names():
        raise BackendError(f"OpenVINO gives {port.get_names()} in the place of {name}")
    shape = tuple(n.get_length() if n.is_static else None for n in port.get_partial_shape())
    return TensorSpec(name, shape, port.get_element_type().to_dtype())


def _shape(spec: TensorSpec, batch: int) -> list[int | None]:
    sizes = list(spec.shape)
    if sizes and sizes[0] is None:
        sizes[0] = batch
    return sizes


def _reason(error: Exception) -> str:
    """What the library has to say, without where in its source it says so."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.removeprefix("-- ") for line in lines if line and not line.startswith(NOISE)]
    return "; ".join(told[:MAX_REASONS]) or type(error).__name__
