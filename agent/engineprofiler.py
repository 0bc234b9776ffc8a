"""Profiles a model's engine with the profiler of the library that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.enginepictures import drawn
from agent.engineprofile import Layer, Profile, slowest_first
from agent.errors import ConfigError
from agent.vision.preprocess import Preprocessor
from engines.graph import INPUT_NAME
from engines.ortprofile import profile as profile_ort

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.enginecandidates import Workshop
    from engines.backend import BackendName, Options
    from engines.model import ModelInfo


def run(workshop: Workshop, backend: str, precision: str, *, batch: int, runs: int) -> Profile:
    """Build an engine and profile it.

    Args:
        workshop: builds it.
        backend: by its name.
        precision: likewise.
        batch: pictures of one inference; a model of fixed batch takes its own.
        runs: inferences that are measured.

    Raises:
        ConfigError: such an engine is not to be had here.
        EngineError: it cannot be built or run.
    """
    candidates = workshop.candidates((backend,), (precision,))
    wanted = [c for c in candidates if (c.backend, c.precision) == (backend, precision)]
    if not wanted:
        raise ConfigError(
            f"give one backend and one precision to profile, not {backend} and {precision}"
        )
    batch = workshop.info.max_batch or batch
    options = replace(
        workshop.options,
        run=replace(workshop.options.run, batch=batch, arrangement="latency"),
    )
    product = workshop.product(wanted[0], options)
    layers, run_ms = PROFILERS[wanted[0].backend](
        product.blob, images_for(workshop.info, batch), options, runs
    )
    return Profile(
        backend,
        precision,
        slowest_first(layers),
        run_ms,
        runs,
        {
            "threads": options.run.threads,
            "batch": batch,
            "width": workshop.info.width,
            "height": workshop.info.height,
            "route": product.route,
        },
    )


def images_for(info: ModelInfo, batch: int) -> NDArray[np.uint8]:
    """A drawn picture as the engine takes it: BGR, uint8, [batch, height, width, 3]."""
    images = np.empty((batch, info.height, info.width, 3), np.uint8)
    preprocessor = Preprocessor(info.resize, info.width, info.height)
    for image in images:
        preprocessor.write(drawn(), image)
    return images


Profiler = Callable[["bytes", "NDArray[np.uint8]", "Options", int], "tuple[list[Layer], float]"]
"""Blob, images, options and runs; gives layers, and a whole run's milliseconds."""


def _ort(
    blob: bytes, images: NDArray[np.uint8], options: Options, runs: int
) -> tuple[list[Layer], float]:
    found = profile_ort(
        blob,
        {INPUT_NAME: images},
        runs=runs,
        threads=options.run.threads,
        providers=options.run.providers,
    )
    layers = [Layer(n.name, n.op, n.dtype, n.ms, n.shape) for n in found.nodes]
    return layers, found.run_ms


def _openvino(
    blob: bytes, images: NDArray[np.uint8], options: Options, runs: int
) -> tuple[list[Layer], float]:
    from engines.openvinobackend import unpack  # noqa: PLC0415 - optional
    from engines.openvinoprofile import profile  # noqa: PLC0415

    precision, model = unpack(blob)
    found = profile(model, precision, images, runs=runs, threads=options.run.threads)
    return [Layer(n.name, n.kind, n.precision, n.ms, n.shape) for n in found.layers], found.run_ms


PROFILERS: dict[BackendName, Profiler] = {"onnxruntime": _ort, "openvino": _openvino}
