"""Times every layer of a model in OpenVINO, with the library's own counters."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import BackendError, InferenceError
from engines.openvino import DEVICE, HINTS, KINDS, OV_ERRORS

import openvino as ov  # isort: skip  # after our module, which puts its converter out of reach

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.backend import Precision

WARM_UP_RUNS = 3
MS_PER_S = 1e3


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer as the library runs it.

    Attributes:
        name: the library's name for it; it joins the names of what it has fused.
        kind: of layer, e.g. "Convolution", "Reorder".
        precision: what it computes in.
        shape: of its output, as far as it is fixed.
        ms: mean time in one run, milliseconds.
    """

    name: str
    kind: str
    precision: str
    shape: tuple[int, ...]
    ms: float


@dataclass(frozen=True, slots=True)
class OpenVinoProfile:
    """A profiled model: its layers in the order in which they run, and a whole run's mean time."""

    layers: tuple[LayerTime, ...]
    run_ms: float


def profile(
    model: bytes,
    precision: Precision,
    images: NDArray[np.uint8],
    *,
    runs: int,
    threads: int,
) -> OpenVinoProfile:
    """Run a model with counters on.

    Args:
        model: a self-contained ONNX file's bytes, with one input.
        precision: what floating-point operations may be done in.
        images: for the input.
        runs: measured runs, at least 1.
        threads: cores that one run is spread over.

    Raises:
        BackendError: the library refuses the model.
        InferenceError: it fails to run it.
    """
    settings = {
        "PERF_COUNT": True,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = ov.Core()
        compiled = core.compile_model(core.read_model(model), DEVICE, settings)
        facts = _facts(compiled)
    except OV_ERRORS as error:
        raise BackendError(f"OpenVINO refuses the model: {error}") from error
    times: defaultdict[str, float] = defaultdict(float)
    kinds: dict[str, str] = {}
    whole = 0.0
    try:
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(np.ascontiguousarray(images), shared_memory=True))
        for number in range(WARM_UP_RUNS + runs):
            began = time.perf_counter()
            request.infer()
            if number < WARM_UP_RUNS:
                continue
            whole += time.perf_counter() - began
            for info in request.profiling_info:
                if str(info.status).endswith("EXECUTED"):
                    times[info.node_name] += info.real_time.total_seconds()
                    kinds.setdefault(info.node_name, info.node_type)
    except OV_ERRORS as error:
        raise InferenceError(f"OpenVINO failed while profiling: {error}") from error
    layers = [
        LayerTime(name, kinds[name], *facts.get(name, ("", ())), seconds * MS_PER_S / runs)
        for name, seconds in times.items()
    ]
    return OpenVinoProfile(tuple(layers), whole * MS_PER_S / runs)


def _facts(compiled: Any) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Precision and output shape by the name of a layer."""
    found = {}
    for layer in compiled.get_runtime_model().get_ops():
        kind = layer.get_rt_info()["runtimePrecision"].astype(str)
        partial = layer.get_output_partial_shape(0) if layer.get_output_size() else ()
        shape = tuple(n.get_length() for n in partial if n.is_static)
        found[layer.get_friendly_name()] = (KINDS.get(kind, kind), shape)
    return found
