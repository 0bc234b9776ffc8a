"""One build by one route: ONNX bytes in, plan out. Runs in a process of its own, see `child`.

Profiling verbosity is DETAILED in every engine, because only that lets the inspector name each
layer's precision, and an engine whose precision is not proven is not taken. It costs annotations
at each enqueue, which a CUDA graph leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from engines.backend import Progress
from engines.errors import BuildError
from engines.trt import shortage, timing
from engines.trt.calibrator import Calibration, make_calibrator
from engines.trt.monitor import make_monitor
from engines.trt.shortage import BuildMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from engines.trt.api import TrtApi
    from engines.trt.board import Board
    from engines.trt.calibrator import Upload
    from engines.trt.order import Order
    from engines.trt.routes import Route

GIB = 1 << 30

WORKSPACE_BYTES = GIB
WORKSPACE_SHARE = 0.25
"""Scratch memory: the smaller of this much and this share of what is free."""

SMALL_BOARD_BYTES = 8.5 * GIB
TACTIC_SHARE = 0.5
"""On boards of 8 GB and less, kernels that are tried may take half of the memory, not TensorRT's
75 %: camera, agent and the engine that serves meanwhile live there too."""

TINY_BOARD_BYTES = 4.5 * GIB
LEVEL = 3
TINY_LEVEL = 2
"""Builder optimisation level, and that of boards of 4 GB and less."""

MAX_ERRORS = 5
"""Parser errors that are named; one refused operator is often refused at many nodes."""

MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where a route that needs int8 ranges from outside the graph finds them.

    Attributes:
        cache: calibration cache text.
        batches: calibration batches.
        upload: brings them to the device.
    """

    cache: bytes | None = None
    batches: Iterator[NDArray[Any]] | None = None
    upload: Upload | None = None


def build(
    api: TrtApi,
    order: Order,
    model: bytes | memoryview,
    board: Board,
    free_bytes: int,
    *,
    ranges: Ranges | None = None,
    tell: Callable[[Progress], None],
) -> tuple[bytes, dict[str, object]]:
    """Build a plan.

    Args:
        api: TensorRT.
        order: what to build.
        model: the ONNX file's bytes.
        board: where.
        free_bytes: GPU memory that is free now.
        ranges: for routes with `calibration`.
        tell: takes progress.

    Returns:
        The plan, and figures for the report.

    Raises:
        BuildError: the parser or the builder refuses; the message carries TensorRT's own.
        BuildMemoryError: memory is short.
        CalibrationError: calibration failed.
    """
    builder = api.started("Builder", BuildError)
    network = api.checked(
        BuildError, "could not make a network", builder.create_network, _creation(api, order.route)
    )
    config = api.checked(
        BuildError, "could not make a configuration", builder.create_builder_config
    )
    figures = _configure(api, builder, config, order, board, free_bytes)
    tell(Progress("parsing"))
    _parse(api, order, network, config, model)
    _profile(builder, network, config, order)
    if order.route.pins:
        figures["pinned"] = _pin(api, network, frozenset(order.float_nodes))
    calibration = _calibrate(api, config, order, ranges)
    monitor = _monitor(api, config, tell)
    figures["timing_cache"] = timing.attach(config, order.timing)
    tell(Progress("building"))
    position = api.log.position
    plan = builder.build_serialized_network(network, config)
    _raise_kept(calibration, monitor)
    if plan is None:
        what = f"built nothing by {order.route.name!r}"
        if shortage.TEXT.search("\n".join(api.log.since(position))):
            raise api.failure(BuildMemoryError, f"{what}, {shortage.ADVICE}", position)
        raise api.failure(BuildError, what, position)
    timing.save(config, order.timing)
    if calibration is not None:
        figures["calibration_batches"] = calibration.used
    return bytes(plan), figures


def _creation(api: TrtApi, route: Route) -> int:
    kind = api.module.NetworkDefinitionCreationFlag
    flags = 0
    # 8 needs it, 10 ignores it, 11 has it no more: there a set bit 0 would mean something else.
    if api.has("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"):
        flags |= 1 << int(kind.EXPLICIT_BATCH)
    if route.strong:
        flags |= 1 << int(kind.STRONGLY_TYPED)
    return flags


def _configure(
    api: TrtApi, builder: Any, config: Any, order: Order, board: Board, free_bytes: int
) -> dict[str, object]:
    module = api.module
    for name in order.route.flags:
        config.set_flag(getattr(module.BuilderFlag, name))
    if order.route.graph == "fp32" and not order.route.flags:
        # TF32 keeps 10 bits of each factor: that is not what fp32 promises.
        config.clear_flag(module.BuilderFlag.TF32)
    workspace = order.workspace_bytes
    if workspace is None:
        workspace = int(min(WORKSPACE_BYTES, WORKSPACE_SHARE * free_bytes))
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    # Not in 8.5.
    if api.has("MemoryPoolType", "TACTIC_DRAM") and board.memory_bytes <= SMALL_BOARD_BYTES:
        limit = int(TACTIC_SHARE * board.memory_bytes)
        config.set_memory_pool_limit(module.MemoryPoolType.TACTIC_DRAM, limit)
    level = order.level
    if level is None:
        level = TINY_LEVEL if board.memory_bytes <= TINY_BOARD_BYTES else LEVEL
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = level
    if board.integrated and hasattr(config, "max_aux_streams"):
        # A small GPU is filled by one layer; further streams cost memory and order.
        config.max_aux_streams = 0
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if order.dla_core is not None:
        _use_dla(api, builder, config, order.dla_core)
    return {"workspace_bytes": workspace, "level": level}


def _use_dla(api: TrtApi, builder: Any, config: Any, core: int) -> None:
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        raise BuildError(
            f"there is no DLA core {core}: TensorRT {api.version} finds {cores} on this machine; "
            "leave tensorrt.dla_core away to use the GPU"
        )
    config.default_device_type = api.module.DeviceType.DLA
    config.DLA_core = core


def _parse(api: TrtApi, order: Order, network: Any, config: Any, model: bytes | memoryview) -> None:
    parser = api.module.OnnxParser(network, api.logger)
    for name in order.route.parser_flags:
        parser.set_flag(getattr(api.module.OnnxParserFlag, name))
    if order.route.parser_flags:
        parser.set_builder_config(config)
    if parser.parse(model):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    named = [_parser_error(error, model) for error in errors[:MAX_ERRORS]]
    more = f"; and {len(errors) - len(named)} more" if len(errors) > len(named) else ""
    raise BuildError(
        f"TensorRT {api.version} does not take the model: "
        f"{'; '.join(named) or 'its parser says nothing'}{more}"
    )


def _parser_error(error: Any, model: bytes | memoryview) -> str:
    text = " ".join(error.desc().split())[:MAX_ERROR_CHARS]
    index = error.node()
    if index < 0:
        return text
    if hasattr(error, "node_name"):
        return f"node {error.node_name()!r} ({error.node_operator()}): {text}"
    # 8 gives the number alone.
    nodes = onnx.load_model_from_string(bytes(model)).graph.node
    if index >= len(nodes):
        return f"node {index}: {text}"
    return f"node {nodes[index].name!r} ({nodes[index].op_type}): {text}"


def _profile(builder: Any, network: Any, config: Any, order: Order) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    unknown = [tensor.name for tensor in inputs if tensor.name not in order.shapes]
    if unknown:
        raise BuildError(f"no shapes are known for the inputs {', '.join(unknown)}")
    if all(-1 not in tuple(tensor.shape) for tensor in inputs):
        return
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        smallest, best, largest = order.shapes[tensor.name]
        profile.set_shape(tensor.name, smallest, best, largest)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT refuses the shapes {dict(order.shapes)}")
    if order.route.calibration and hasattr(config, "set_calibration_profile"):
        config.set_calibration_profile(profile)


def _pin(api: TrtApi, network: Any, names: frozenset[str]) -> int:
    """Ask for float16 where the graph cannot say so itself; returns how many layers were asked."""
    kinds = api.module.DataType
    pinned = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(number) for number in range(layer.num_outputs)]
        floats = [o.dtype in (kinds.FLOAT, kinds.HALF) and not o.is_shape_tensor for o in outputs]
        if layer.name not in names or not floats or not all(floats):
            continue
        layer.precision = kinds.HALF
        for number in range(len(outputs)):
            layer.set_output_type(number, kinds.HALF)
        pinned += 1
    return pinned


def _calibrate(api: TrtApi, config: Any, order: Order, ranges: Ranges | None) -> Calibration | None:
    if not order.route.calibration:
        return None
    ((name, (_, best, _)),) = order.shapes.items()
    assert ranges is not None
    calibration = Calibration(
        api.version,
        name,
        best,
        cache=ranges.cache,
        batches=ranges.batches,
        upload=ranges.upload,
    )
    config.int8_calibrator = make_calibrator(api, calibration)
    return calibration


def _monitor(api: TrtApi, config: Any, tell: Callable[[Progress], None]) -> Any:
    # Not before 10: there, a build tells nothing until it ends.
    if not api.has("IProgressMonitor"):
        return None
    monitor = make_monitor(api, tell)
    config.progress_monitor = monitor
    return monitor


def _raise_kept(calibration: Calibration | None, monitor: Any) -> None:
    """Raise what a callback had to keep, since the bindings would have dropped it."""
    for error in (getattr(calibration, "error", None), getattr(monitor, "error", None)):
        if error is not None:
            raise error
