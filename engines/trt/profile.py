"""Where a TensorRT engine's time goes: by stage with events, by layer with its profiler.

Both run on contexts of their own. A profiler on the context that serves would slow every inference,
and events between stages keep them from overlapping.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.errors import InferenceError

if TYPE_CHECKING:
    from engines.trt.api import TrtApi
    from engines.trt.inspect import Layer
    from engines.trt.run import TrtEngine

WARM_UP_RUNS = 5


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer's part of an inference.

    Attributes:
        name: TensorRT's name of it.
        ms: mean over the runs, milliseconds.
        precision: what it computes in, as the inspector says; "" if it does not know the layer.
        reformat: whether it only changes how values lie.
    """

    name: str
    ms: float
    precision: str
    reformat: bool


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one inference on the GPU's own clock.

    Attributes:
        copy_in_ms: input to the GPU; 0 where it is read in place.
        compute_ms: the network.
        copy_out_ms: outputs to the host.
    """

    copy_in_ms: float
    compute_ms: float
    copy_out_ms: float


def make_profiler(module: Any, times: dict[str, list[float]]) -> Any:
    """A TensorRT profiler that appends each layer's milliseconds to `times`."""

    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(str(layer_name), []).append(float(ms))

    return Profiler()


def layer_times(api: TrtApi, engine: TrtEngine, batch: int, runs: int) -> list[LayerTime]:
    """Time every layer.

    Args:
        api: TensorRT.
        engine: a loaded plan.
        batch: images of one inference.
        runs: inferences that are averaged.

    Returns:
        Layers, slowest first.

    Raises:
        InferenceError: the engine fails, or memory is short.
    """
    times: dict[str, list[float]] = {}
    profiler = make_profiler(api.module, times)
    with contextlib.closing(engine.create_context(batch, graphs=False)) as context:
        for _ in range(WARM_UP_RUNS):
            context.infer()
        context.watch(profiler)
        for _ in range(runs):
            context.infer()
            context.report()
    if not times:
        raise InferenceError("TensorRT's profiler reported no layer; report it with the version")
    known: dict[str, Layer] = {layer.name: layer for layer in engine.facts.layers}
    rows = [_row(name, values, known.get(name)) for name, values in times.items()]
    return sorted(rows, key=lambda row: -row.ms)


def stage_times(engine: TrtEngine, batch: int, runs: int) -> list[StageTimes]:
    """Time the stages of each of some inferences.

    Raises:
        InferenceError: the engine fails, or memory is short.
    """
    with contextlib.closing(engine.create_context(batch, graphs=False)) as context:
        for _ in range(WARM_UP_RUNS):
            context.infer()
        return [StageTimes(*context.infer_timed()) for _ in range(runs)]


def _row(name: str, values: list[float], layer: Layer | None) -> LayerTime:
    mean = sum(values) / len(values)
    if layer is None:
        return LayerTime(name, mean, "", reformat=False)
    return LayerTime(name, mean, layer.precision, layer.reformat)
