"""ONNX Runtime: the engine that runs wherever there is no GPU. Sole importer of onnxruntime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from engines.base import TensorSpec
from engines.errors import BackendError, InferenceError
from engines.ortproof import computed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.backend import RunOptions

# The C++ API raises these; the package exports no common base under a public name. What it has no
# class for, such as memory that cannot be had while a model runs, is a RuntimeError.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        getattr(ort.capi.onnxruntime_pybind11_state, name)
        for name in (
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
            "EPFail",
        )
    ),
)

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}

CPU = "CPUExecutionProvider"
ERROR_SEVERITY = 3
"""ONNX Runtime's logger prints errors and worse only; warnings reach users through our errors."""


class OrtContext:
    """Input arrays of one thread, and output arrays wherever the graph fixes their shapes."""

    def __init__(self, session: ort.InferenceSession, batch: int) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._names = [tensor.name for tensor in session.get_outputs()]
        self.inputs: dict[str, NDArray[Any]] = {}
        self._fixed: dict[str, NDArray[Any]] = {}
        self._open: list[str] = []
        try:
            self._allocate(batch)
        except MemoryError as error:
            raise InferenceError(
                f"not enough memory for the inputs and outputs of batches of {batch}"
            ) from error

    def _allocate(self, batch: int) -> None:
        for tensor in self._session.get_inputs():
            shape = _shape(tensor.shape, batch)
            if None in shape or shape[0] != batch:
                raise InferenceError(
                    f"the model takes {tensor.name} of shape {tensor.shape}, not batches of {batch}"
                )
            array = np.zeros([n or 0 for n in shape], DTYPES[tensor.type])
            self.inputs[tensor.name] = array
            self._bind(self._binding.bind_input, tensor.name, array)
        for tensor in self._session.get_outputs():
            shape = _shape(tensor.shape, batch)
            if None in shape or tensor.type not in DTYPES:
                self._open.append(tensor.name)
                self._binding.bind_output(tensor.name, "cpu")
            else:
                array = np.empty([n or 0 for n in shape], DTYPES[tensor.type])
                self._fixed[tensor.name] = array
                self._bind(self._binding.bind_output, tensor.name, array)

    @staticmethod
    def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def infer(self) -> Mapping[str, NDArray[Any]]:
        """Run the model; see `engines.base.Context`."""
        try:
            self._session.run_with_iobinding(self._binding)
        except ORT_ERRORS as error:
            raise InferenceError(f"ONNX Runtime failed: {_first_line(error)}") from error
        if not self._open:
            return self._fixed
        values = dict(zip(self._names, self._binding.get_outputs(), strict=True))
        return {**self._fixed, **{name: values[name].numpy() for name in self._open}}

    def close(self) -> None:
        """Release the binding; the arrays go with their last user."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()


class OrtEngine:
    """A model loaded by ONNX Runtime."""

    backend = "onnxruntime"

    def __init__(self, session: ort.InferenceSession, precision: str, lanes: int) -> None:
        self._session = session
        self.precision = precision
        self.lanes = lanes
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self.inputs = tuple(_spec(t) for t in session.get_inputs())
        self.outputs = tuple(_spec(t) for t in session.get_outputs())

    def create_context(self, batch: int) -> OrtContext:
        """See `engines.base.Engine`."""
        return OrtContext(self._session, batch)

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees it with the last context."""
        del self._session


def load(model: bytes, precision: str, options: RunOptions) -> OrtEngine:
    """Load a serialized ONNX model.

    Args:
        model: a self-contained ONNX file's bytes.
        precision: what the graph is said to compute in. It is believed only where that cannot be
            seen: of graphs without weights, and of other providers than the CPU's.
        options: providers, arrangement and threads.

    Raises:
        BackendError: a provider is not installed, or the model was refused.
    """
    available = ort.get_available_providers()
    missing = [p for p in options.providers if p not in available]
    if missing:
        raise BackendError(
            f"ONNX Runtime has no {', '.join(missing)}; this build offers {', '.join(available)}. "
            "Install the onnxruntime package that carries it or change `providers`"
        )
    throughput = options.arrangement == "throughput"
    settings = ort.SessionOptions()
    settings.log_severity_level = ERROR_SEVERITY
    settings.intra_op_num_threads = 1 if throughput else options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    if options.providers == (CPU,):
        session, proven = _create_proven(model, settings)
    else:
        # Other providers compile their own parts; ONNX Runtime cannot write such a graph.
        session, proven = _create(model, settings, options.providers), ""
    return OrtEngine(session, proven or precision, options.threads if throughput else 1)


def _create_proven(model: bytes, settings: ort.SessionOptions) -> tuple[ort.InferenceSession, str]:
    """Open a session and look at the graph that the runtime made; nothing is written to disk."""
    descriptor = os.memfd_create("vigia-graph", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        settings.optimized_model_filepath = f"/proc/self/fd/{descriptor}"
        session = _create(model, settings, (CPU,))
        return session, computed(onnx.load_from_string(file.read()))


def _create(
    model: bytes, settings: ort.SessionOptions, providers: tuple[str, ...]
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, settings, providers=list(providers))
    except ORT_ERRORS as error:
        raise BackendError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error


def _spec(tensor: Any) -> TensorSpec:
    dtype = np.dtype(DTYPES.get(tensor.type, np.object_))
    return TensorSpec(tensor.name, tuple(_shape(tensor.shape, None)), dtype)


def _shape(shape: list[int | str | None], batch: int | None) -> list[int | None]:
    sizes = [n if isinstance(n, int) else None for n in shape]
    if sizes and sizes[0] is None:
        sizes[0] = batch
    return sizes


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def version() -> str:
    """The library's version."""
    return str(ort.__version__)
