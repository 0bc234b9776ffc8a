"""TensorRT as a backend: routes are tried until one builds, each in a process of its own."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.backend import Attempt, BackendName, Precision, Product, Progress
from engines.errors import BackendError, BuildError, EngineError, InferenceError
from engines.qdqrules import violations
from engines.regions import sensitive
from engines.trt import run
from engines.trt.api import TrtApi, import_advice, open_api
from engines.trt.board import available_bytes
from engines.trt.feed import pictures, shapes
from engines.trt.order import Order
from engines.trt.process import Job
from engines.trt.process import run as build_in_process
from engines.trt.routes import Capabilities, Route, routes
from engines.trt.shortage import BuildMemoryError
from engines.trt.timing import cache_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    from engines.backend import Options, Recipe
    from engines.base import Engine
    from engines.model import ModelInfo
    from engines.precision import Variants
    from engines.source import GraphStyle, Source
    from engines.trt.cuda import CudaPort

log = logging.getLogger(__name__)

FAST_FP16_FROM = (5, 3)
SLOW_FP16 = (6, 1)
FAST_INT8_FROM = (6, 1)
SLOW_INT8 = (6, 2)
"""Compute capabilities with arithmetic for a type, from NVIDIA's table of hardware and precision:
6.1 has no fast float16, 6.2 (TX2) no int8. TensorRT 11 can no longer be asked."""


@dataclass(frozen=True, slots=True)
class System:
    """What this backend stands on.

    Attributes:
        api: TensorRT.
        cuda: the GPU; its context is kept for the whole process.
    """

    api: TrtApi
    cuda: CudaPort


@functools.cache
def system() -> System:
    """TensorRT and the GPU, opened once.

    Raises:
        BackendError: one of them cannot be used.
    """
    api = open_api()
    try:
        # Not at the top: a machine without CUDA must be able to say what it lacks.
        from engines.trt.cudapycuda import open_port  # noqa: PLC0415 - see above

        return System(api, open_port())
    except ImportError as error:
        raise BackendError(f"pycuda cannot be imported: {error}; {_advice(error)}") from error
    except InferenceError as error:
        raise BackendError(f"the GPU cannot be used: {error}") from error


def _advice(error: ImportError) -> str:
    if "No module named" in str(error):
        return "pip install pycuda, which needs nvcc and g++"
    return import_advice(str(error))


def offers(compute_capability: str) -> tuple[Precision, ...]:
    """Precisions that a GPU has arithmetic for, slowest first."""
    major, minor = (int(part) for part in compute_capability.split("."))
    kind = (major, minor)
    fp16 = kind >= FAST_FP16_FROM and kind != SLOW_FP16
    int8 = kind >= FAST_INT8_FROM and kind != SLOW_INT8
    found: list[Precision] = ["fp32"]
    if fp16:
        found.append("fp16")
    if int8:
        found.append("int8")
    return tuple(found)


def capabilities(api: TrtApi) -> Capabilities:
    """What this TensorRT can do, for the table of routes."""
    return Capabilities(
        weak=api.weak_typing,
        strong=api.strong_typing,
        calibrator=api.implicit_int8,
        adjusts_for_dla=api.adjusts_for_dla,
    )


class TensorRtBackend:
    """See `engines.backend.Backend`."""

    name: BackendName = "tensorrt"

    def why_not(self) -> str:
        """See `engines.backend.Backend`."""
        try:
            system()
        except EngineError as error:
            return str(error)
        return ""

    def offers(self) -> tuple[Precision, ...]:
        """See `engines.backend.Backend`."""
        return offers(system().cuda.board.compute_capability)

    def fingerprint(self) -> Mapping[str, str]:
        """See `engines.backend.Backend`."""
        api = system().api
        return {
            **system().cuda.board.fingerprint(),
            "tensorrt": api.version,
            "parser": api.parser_version,
        }

    def build(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> Product:
        """See `engines.backend.Backend`."""
        attempts: list[Attempt] = []
        build = _Build(source, recipe, options, tell)
        for route in build.routes:
            try:
                plan, facts = build.attempt(route)
            except BuildError as error:
                log.warning("route %s fell: %s", route.name, error)
                attempts.append(Attempt(route.name, str(error)))
                # Where memory or time ran out, other routes would take as much of it.
                if isinstance(error, BuildMemoryError) or build.late:
                    break
            else:
                return Product(plan, route.name, (*attempts, Attempt(route.name)), facts)
        fallen = "; ".join(f"{attempt.route}: {attempt.reason}" for attempt in attempts)
        raise BuildError(f"TensorRT built no {recipe.precision} engine: {fallen}")

    def load(self, blob: bytes, info: ModelInfo, options: Options) -> Engine:
        """See `engines.backend.Backend`."""
        return run.load(system().api, system().cuda, blob, info, options)


class _Build:
    """The routes of one build, with what they share."""

    def __init__(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> None:
        self._source = source
        self._recipe = recipe
        self._options = options.tensorrt
        self._batch = options.run.batch
        self._tell = tell
        self._system = system()
        self._dla = self._options.dla_core is not None
        self._style: GraphStyle = "tensor" if self._options.preprocess == "cuda" else "device"
        self._deadline = time.monotonic() + self._options.timeout_s
        self.routes = routes(recipe.precision, capabilities(self._system.api), dla=self._dla)

    @property
    def late(self) -> bool:
        """Whether the time for the whole build is over."""
        return time.monotonic() >= self._deadline

    def attempt(self, route: Route) -> tuple[bytes, dict[str, object]]:
        """Build by one route.

        Raises:
            BuildError: it led nowhere.
            CalibrationError: the calibration pictures are unusable.
        """
        options, board = self._options, self._system.cuda.board
        variants = self._source.variants(self._style, self._recipe.float_nodes, self._tell)
        model = _graph(variants, route)
        if "qdq" in route.graph:
            faults = violations(model)
            if faults:
                raise BuildError(f"TensorRT would refuse the graph: {'; '.join(faults)}")
        found = shapes(model, self._batch, fixed=self._dla)
        version = self._system.api.version
        order = Order(
            route,
            found,
            tuple(sorted(self._recipe.float_nodes | sensitive(model))) if route.pins else (),
            options.workspace_bytes,
            options.level,
            options.dla_core,
            None
            if options.timing_folder is None
            else cache_path(
                options.timing_folder.absolute(), version, board.compute_capability, board.driver
            ),
        )
        images = self._source.calibration if route.calibration == "pictures" else None
        job = Job(
            order,
            _serialised(model),
            board,
            available_bytes(self._system.cuda),
            self._deadline,
            options.timeout_s,
            variants.calibration_cache(version) if route.calibration == "cache" else None,
            None
            if images is None
            else pictures(images, next(iter(found.values()))[1], self._style, self._source.info),
            options.memory_bytes,
        )
        self._tell(Progress(f"building: {route.name}"))
        return build_in_process(job, self._tell)


def _graph(variants: Variants, route: Route) -> onnx.ModelProto:
    emit = {
        "fp32": variants.fp32,
        "fp16": variants.fp16,
        "qdq": variants.qdq,
        "fp16_qdq": variants.fp16_qdq,
    }
    return emit[route.graph]()


def _serialised(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise BuildError(
            "the graph is larger than 2 GiB, which ONNX cannot hold in one file"
        ) from error
