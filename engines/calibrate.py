"""Runs the float model over pictures and finds how far the values of its tensors reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from engines.backend import Progress
from engines.errors import CalibrationError
from engines.histogram import Histogram
from engines.ort import ORT_ERRORS
from engines.wiring import shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from engines.images import Images
    from engines.ranges import Method

PERCENT = 99.999
"""Share of a tensor's values that the percentile method covers."""

CHUNK_BYTES = 256 * 2**20
"""Tensors that are looked at in one run are kept until it ends; this is what they may take."""

UNKNOWN_BYTES = 4 * 2**20
"""Assumed for a tensor whose shape cannot be told; of detectors at 640 pixels few have more."""

FLOAT_BYTES = 4

ERROR_SEVERITY = 3
"""ONNX Runtime's logger prints errors and worse only."""


class Reach(NamedTuple):
    """How far a tensor's values reach.

    Attributes:
        least: smallest value, at most 0, not beyond -amax.
        amax: largest magnitude that is told apart.
    """

    least: float
    amax: float


def calibrate(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    images: Images,
    *,
    method: Method,
    threads: int,
    tell: Callable[[Progress], None],
) -> dict[str, Reach]:
    """Find how far each tensor reaches.

    Args:
        model: float32, with one input: uint8 BGR [B, H, W, 3].
        tensors: names of float32 tensors, weights not among them.
        images: the pictures; read once for every `CHUNK_BYTES` of tensors.
        method: "max" is the largest value; "percentile" leaves out the largest 0.001 %; "entropy"
            is described at `Histogram.entropy`.
        threads: processor cores to use.
        tell: takes progress.

    Returns:
        Ranges by tensor name, of 0 for a tensor that was always 0.

    Raises:
        CalibrationError: there are no pictures, one is of the wrong size, ONNX Runtime refuses the
            model, or a tensor becomes NaN or infinite.
    """
    if not len(images):
        raise CalibrationError("there are no calibration pictures; set quantize.calibration")
    chunks = list(_chunks(model, tensors))
    total = len(chunks) * len(images)
    found: dict[str, Reach] = {}
    done = 0
    for names in chunks:
        probe = Probe(model, names, threads)
        histograms = {name: Histogram() for name in names}
        for values in map(probe.run, images):
            for name, value in zip(names, values, strict=True):
                _take(histograms[name], name, value, method)
            done += 1
            tell(Progress("calibrating", done, total))
        found.update((name, _reach(h, method)) for name, h in histograms.items())
    return found


def _chunks(model: onnx.ModelProto, tensors: Sequence[str]) -> Iterator[list[str]]:
    known = shapes(model)
    names: list[str] = []
    used = 0
    for name in tensors:
        shape = known.get(name)
        size = UNKNOWN_BYTES
        if shape is not None and None not in shape:
            size = FLOAT_BYTES * math.prod(n or 0 for n in shape)
        if names and used + size > CHUNK_BYTES:
            yield names
            names, used = [], 0
        names.append(name)
        used += size
    if names:
        yield names


class Probe:
    """A graph that tells what some of its tensors become.

    Args:
        model: with one input, uint8 [B, H, W, 3]; not changed.
        names: float32 tensors.
        threads: processor cores to use.

    Raises:
        CalibrationError: ONNX Runtime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], threads: int) -> None:
        tapped = onnx.ModelProto()
        tapped.CopyFrom(model)
        make = helper.make_tensor_value_info
        del tapped.graph.output[:]
        tapped.graph.output.extend(make(name, TensorProto.FLOAT, None) for name in names)
        settings = ort.SessionOptions()
        settings.log_severity_level = ERROR_SEVERITY
        settings.intra_op_num_threads = threads
        try:
            self._session = ort.InferenceSession(
                tapped.SerializeToString(), settings, providers=["CPUExecutionProvider"]
            )
        except ORT_ERRORS as error:
            raise CalibrationError(f"ONNX Runtime refuses the float model: {error}") from error
        self._names = list(names)
        self._input = self._session.get_inputs()[0].name
        batch, *self._form = self._session.get_inputs()[0].shape
        self._copies = batch if isinstance(batch, int) else 1

    def run(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Values of the tensors, in the order of their names, for one picture.

        A model of a fixed batch is given the picture so many times.

        Raises:
            CalibrationError: the picture is of another size, or ONNX Runtime fails.
        """
        if list(image.shape) != self._form:
            raise CalibrationError(
                f"a calibration picture is {list(image.shape)}, the model takes {self._form}"
            )
        feed = np.repeat(image[None], self._copies, axis=0)
        try:
            values: list[NDArray[np.float32]] = self._session.run(self._names, {self._input: feed})
        except ORT_ERRORS as error:
            raise CalibrationError(f"ONNX Runtime failed while calibrating: {error}") from error
        return values


def _take(histogram: Histogram, name: str, value: NDArray[Any], method: Method) -> None:
    if not value.size:
        return
    histogram.least = min(histogram.least, float(value.min()))
    magnitudes = np.abs(value)
    largest = float(magnitudes.max())
    if not np.isfinite(largest):
        raise CalibrationError(
            f"tensor {name!r} becomes NaN or infinite on a calibration picture; "
            "check the model in float32 before it is quantised"
        )
    if method == "max":
        histogram.amax = max(histogram.amax, largest)
    else:
        histogram.add(magnitudes, largest)


def _reach(histogram: Histogram, method: Method) -> Reach:
    amax = histogram.amax
    if method == "percentile":
        amax = histogram.percentile(PERCENT)
    elif method == "entropy":
        amax = histogram.entropy()
    return Reach(max(histogram.least, -amax), amax)
