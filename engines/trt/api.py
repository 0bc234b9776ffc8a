"""One face for every TensorRT from 8.5 to 11: by what the module has, never by its number.

The version is used for what cannot be told otherwise: releases that are known to be broken, and
messages. TensorRT's calls fail in three ways: constructors raise TypeError, makers return None,
setters return False. All of them become one error that carries what the log said meanwhile.
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import BackendError, EngineError, InferenceError, PlanError
from engines.trt import shortage
from engines.trt.logger import LogLines, make_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OLDEST = (8, 5)
"""Named tensors, `execute_async_v3` and memory pools all exist from here on."""

BROKEN: dict[tuple[int, ...], str] = {
    (10, 2, 0): "it asks for a resource library that exists on Windows only",
}
"""Releases that cannot build on Linux, and why."""

DTYPES: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
"""Our own table: TensorRT 8.5's `nptype` needs a NumPy that no supported Python has."""

ADVICE = {
    "libnvdla_compiler": (
        "this TensorRT belongs to an older JetPack than the system; install the tensorrt and "
        "python3-libnvinfer packages of this JetPack (7 or newer)"
    ),
    "No module named": (
        "on a Jetson: apt install python3-libnvinfer, and make the virtual environment with "
        "--system-site-packages; elsewhere: pip install tensorrt"
    ),
    "libcuda.so": "the NVIDIA driver is not installed, or the container was started without --gpus",
    "libnvinfer": (
        "TensorRT's own libraries are not found; install the tensorrt package that belongs to "
        "the Python module"
    ),
    "libcudart": "the CUDA runtime that this TensorRT was built for is not installed",
    "undefined symbol": (
        "the Python module and TensorRT's libraries are of different versions; install both "
        "from one package source"
    ),
}
"""Part of an import error's text -> what to do about it; the first that fits counts."""

FOREIGN = re.compile(
    r"version tag|magic tag|not compatible|incompatible|expecting library version"
    r"|different platform|different model|compute capability|serialization assertion",
    re.IGNORECASE,
)
"""Log lines that say a plan is of another version or device, or damaged."""


@dataclass(frozen=True, slots=True)
class IoTensor:
    """An input or output of an engine.

    Attributes:
        name: as in the graph.
        shape: sizes; -1 where the profile leaves it open.
        dtype: element type.
        is_input: else it is an output.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool


def import_advice(error: str) -> str:
    """What to do about an import that failed with this text."""
    return next((advice for part, advice in ADVICE.items() if part in error), "reinstall TensorRT")


def version_refusal(version: str) -> str:
    """Why this release cannot be used; empty if it can."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", version))
    if numbers[: len(OLDEST)] < OLDEST:
        return (
            f"TensorRT {version} is too old; {'.'.join(map(str, OLDEST))} (JetPack 5.1) is the "
            "oldest that works"
        )
    reason = BROKEN.get(numbers[:3])
    return f"TensorRT {version} does not work: {reason}; install another" if reason else ""


def import_tensorrt() -> Any:
    """The `tensorrt` module of this system.

    Raises:
        BackendError: it is not there, does not start, or is a release that cannot be used.
    """
    try:
        module = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendError(
            f"TensorRT cannot be imported: {error}; {import_advice(str(error))}"
        ) from error
    refusal = version_refusal(module.__version__)
    if refusal:
        raise BackendError(refusal)
    return module


@functools.cache
def open_api() -> TrtApi:
    """TensorRT as the whole process uses it: it keeps one logger for all.

    Raises:
        BackendError: see `import_tensorrt`.
    """
    return TrtApi(import_tensorrt())


class TrtApi:
    """A TensorRT module, its logger, and calls that raise instead of returning None or False.

    Args:
        module: the imported module, or anything with its names.
        tell: takes log lines with their severity's name.
    """

    def __init__(self, module: Any, tell: Callable[[str, str], None] | None = None) -> None:
        self.module = module
        self.version: str = module.__version__
        self.log = LogLines(tell)
        self.logger = make_logger(module, self.log)

    # -- what this release has ------------------------------------------------------------------

    def has(self, group: str, name: str = "") -> bool:
        """Whether the module has a class or enumeration, and it has this member."""
        found = getattr(self.module, group, None)
        return found is not None and (not name or hasattr(found, name))

    @property
    def weak_typing(self) -> bool:
        """Whether the builder chooses precisions by flags (all before 11)."""
        return self.has("BuilderFlag", "FP16") and self.has("BuilderFlag", "INT8")

    @property
    def strong_typing(self) -> bool:
        """Whether the graph's own types can be made binding (10 and newer)."""
        return self.has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")

    @property
    def implicit_int8(self) -> bool:
        """Whether int8 ranges can come from a calibrator (all before 11)."""
        return self.has("IInt8EntropyCalibrator2")

    @property
    def adjusts_for_dla(self) -> bool:
        """Whether the parser rewrites a typed graph for the DLA (10.16 and newer)."""
        return self.has("OnnxParserFlag", "ADJUST_FOR_DLA")

    @property
    def parser_version(self) -> str:
        """Version number of the ONNX parser."""
        return str(self.module.get_nv_onnx_parser_version())

    # -- failures -------------------------------------------------------------------------------

    def failure(self, kind: type[EngineError], what: str, position: int) -> EngineError:
        """An error that says what failed and what TensorRT logged after `position`."""
        lines = self.log.since(position)
        said = "; ".join(lines) if lines else "it logged nothing"
        return kind(f"TensorRT {self.version} {what}: {said}")

    def started(self, kind: str, error: type[EngineError] = BackendError) -> Any:
        """Make a `Builder` or `Runtime`.

        Raises:
            EngineError: of type `error`; the driver or the library does not start.
        """
        position = self.log.position
        try:
            return getattr(self.module, kind)(self.logger)
        except TypeError as cause:
            what = f"could not start its {kind} (is the NVIDIA driver working?)"
            raise self.failure(error, what, position) from cause

    def checked(
        self, error: type[EngineError], what: str, call: Callable[..., Any], *args: Any
    ) -> Any:
        """Call; None and False become an error.

        Raises:
            EngineError: of type `error`.
        """
        position = self.log.position
        result = call(*args)
        if result is None or result is False:
            raise self.failure(error, what, position)
        return result

    # -- running --------------------------------------------------------------------------------

    def deserialize(self, runtime: Any, plan: bytes) -> Any:
        """Load a plan.

        Raises:
            PlanError: it is damaged, or of another version or device.
            BackendError: it is refused for another reason, such as short memory.
        """
        position = self.log.position
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            said = "\n".join(self.log.since(position))
            foreign = FOREIGN.search(said) and not shortage.TEXT.search(said)
            kind = PlanError if foreign else BackendError
            raise self.failure(kind, "refuses the plan", position)
        return engine

    def create_context(self, engine: Any) -> Any:
        """An execution context, with its device memory.

        Raises:
            InferenceError: memory is short.
        """
        return self.checked(
            InferenceError, "could not make an execution context", engine.create_execution_context
        )

    def io_tensors(self, engine: Any) -> tuple[IoTensor, ...]:
        """Inputs and outputs in the engine's order.

        Raises:
            BackendError: one is of a type that NumPy has not (bf16, fp8, int4).
        """
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        wanted = self.module.TensorIOMode.INPUT
        return tuple(
            IoTensor(
                name,
                tuple(engine.get_tensor_shape(name)),
                self.dtype(engine.get_tensor_dtype(name), name),
                engine.get_tensor_mode(name) == wanted,
            )
            for name in names
        )

    def dtype(self, kind: Any, name: str) -> np.dtype[Any]:
        """NumPy's type for a `DataType`; `name` is the tensor's, for the message.

        Raises:
            BackendError: NumPy has no such type.
        """
        if kind.name not in DTYPES:
            raise BackendError(
                f"tensor {name!r} is of type {kind.name}, which NumPy has not; "
                "export the model with float32 or float16 inputs and outputs"
            )
        return np.dtype(DTYPES[kind.name])

    def profile_shapes(self, engine: Any, name: str) -> tuple[tuple[int, ...], ...]:
        """Smallest, best and largest shape of an input in the first profile."""
        return tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))

    def device_memory_bytes(self, engine: Any) -> int:
        """Memory that each context of the engine takes for activations."""
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def inspect(self, engine: Any) -> str:
        """What the engine says of its layers: JSON."""
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.module.LayerInformationFormat.JSON))

    def set_input_shape(self, context: Any, name: str, shape: Sequence[int]) -> None:
        """Choose the shape of an input for the next run.

        Raises:
            InferenceError: it lies outside the profile.
        """
        what = f"does not take {name!r} of shape {tuple(shape)} (outside the profile?)"
        self.checked(InferenceError, what, context.set_input_shape, name, tuple(shape))

    def set_address(self, context: Any, name: str, address: int) -> None:
        """Say where in device memory a tensor lies.

        Raises:
            InferenceError: TensorRT refuses the address.
        """
        what = f"does not take the address of {name!r}"
        self.checked(InferenceError, what, context.set_tensor_address, name, address)

    def missing_shapes(self, context: Any) -> list[str]:
        """Inputs whose shape or address is still missing; after that output shapes are known."""
        return list(context.infer_shapes())

    def output_shape(self, context: Any, name: str) -> tuple[int, ...]:
        """Shape of an output for the inputs' present shapes; -1 where it depends on the data."""
        return tuple(context.get_tensor_shape(name))

    def enqueue(self, context: Any, stream: int) -> None:
        """Start a run on a stream, given by its handle; never the default stream 0.

        Raises:
            InferenceError: TensorRT refuses it.
        """
        position = self.log.position
        if not context.execute_async_v3(stream):
            raise self.failure(InferenceError, "could not enqueue an inference", position)
