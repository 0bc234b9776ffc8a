"""Times every operation of a graph in ONNX Runtime, with the runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from engines.errors import BackendError, InferenceError
from engines.ort import ORT_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

WARM_UP_RUNS = 3
"""Runs at the beginning that are left out: they allocate."""

KERNEL = "_kernel_time"
"""Ending of an event's name that stands for one execution of one operation."""

US_PER_MS = 1e3

ERROR_SEVERITY = 3

TYPES = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
}
"""The profiler's names of floating-point types, and ours; integers are named alike."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One operation of the graph as the runtime really runs it, after fusion.

    Attributes:
        name: the node's name.
        op: operation, e.g. "Conv", "ReorderOutput", "QuantizeLinear".
        dtype: element type it computes in: "fp32", "int8", "uint8" ...
        shape: of its first output.
        ms: mean time of one run of the model spent here, milliseconds.
    """

    name: str
    op: str
    dtype: str
    shape: tuple[int, ...]
    ms: float


@dataclass(frozen=True, slots=True)
class OrtProfile:
    """A profiled model.

    Attributes:
        nodes: every operation, in the order in which they run.
        run_ms: mean time of one run as the runtime saw it, which has its own overhead in it.
        runs: how many runs the means are of.
    """

    nodes: tuple[NodeTime, ...]
    run_ms: float
    runs: int


def profile(
    model: bytes,
    feeds: Mapping[str, NDArray[Any]],
    *,
    runs: int,
    threads: int,
    providers: tuple[str, ...] = ("CPUExecutionProvider",),
) -> OrtProfile:
    """Run a model with the profiler on.

    The profiler itself costs some microseconds an operation: shares are right, sums a little high.

    Args:
        model: a self-contained ONNX file's bytes.
        feeds: arrays by input name.
        runs: measured runs, at least 1; some more come before them.
        threads: cores that one run is spread over.
        providers: execution providers, best first.

    Raises:
        BackendError: the runtime refuses the model.
        InferenceError: it fails to run it.
    """
    with tempfile.TemporaryDirectory(prefix="vigia-profile-") as folder:
        settings = ort.SessionOptions()
        settings.log_severity_level = ERROR_SEVERITY
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "ort")
        try:
            session = ort.InferenceSession(model, settings, providers=list(providers))
        except ORT_ERRORS as error:
            raise BackendError(f"ONNX Runtime refuses the model: {error}") from error
        try:
            for _ in range(WARM_UP_RUNS + runs):
                session.run(None, dict(feeds))
        except ORT_ERRORS as error:
            raise InferenceError(f"ONNX Runtime failed while profiling: {error}") from error
        finally:
            path = Path(session.end_profiling())
        events = json.loads(path.read_text("utf-8"))
    return read_events(events, skip=WARM_UP_RUNS)


def read_events(events: Iterable[Mapping[str, Any]], *, skip: int = 0) -> OrtProfile:
    """Sum up what the profiler wrote.

    Args:
        events: its JSON: Chrome trace events, `cat` "Node" and `name` "..._kernel_time" for
            operations, "model_run" for whole runs; `dur` in microseconds.
        skip: runs at the beginning that are left out.

    Returns:
        Means over the other runs; no nodes if there are none.
    """
    durations: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    kinds: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
    whole: list[float] = []
    for event in events:
        name, ms = str(event.get("name", "")), float(event.get("dur", 0)) / US_PER_MS
        if name == "model_run":
            whole.append(ms)
        elif event.get("cat") == "Node" and name.endswith(KERNEL):
            details = event["args"]
            key = (name.removesuffix(KERNEL).rstrip("/"), str(details.get("op_name", "")))
            durations[key].append(ms)
            kinds.setdefault(key, _kind(details))
    # An operation in a loop runs more than once a run, so runs are counted by whole runs.
    runs = max(0, len(whole) - skip)
    nodes = []
    for (name, op), times in durations.items():
        each = len(times) // max(1, len(whole))
        kept = times[skip * each :]
        nodes.append(NodeTime(name, op, *kinds[name, op], float(np.sum(kept)) / max(1, runs)))
    return OrtProfile(tuple(nodes), float(np.mean(whole[skip:])) if runs else 0.0, runs)


def _kind(details: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Element type that an operation computes in, and its first output's shape.

    Where an int8 convolution gives uint8 or float, the type of its input tells what it is.
    """
    given, taken = (_types(details.get(key)) for key in ("output_type_shape", "input_type_shape"))
    shape = given[0][1] if given else ()
    names = [name for name, _ in (taken[:1] or given[:1])]
    if str(details.get("op_name")) in ("Cast", "QuantizeLinear", "DequantizeLinear") and given:
        names = [given[0][0]]
    return (names[0] if names else ""), shape


def _types(value: object) -> list[tuple[str, tuple[int, ...]]]:
    """`[{"float": [1, 3, 8, 8]}, ...]` as pairs of our type name and shape."""
    if not isinstance(value, list):
        return []
    return [
        (TYPES.get(name, name), tuple(int(n) for n in shape))
        for entry in value
        for name, shape in entry.items()
    ]
