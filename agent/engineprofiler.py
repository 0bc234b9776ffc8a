"""Profiles a model's engine with the profiler of the library that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.enginecandidates import SLOT
from agent.enginepictures import drawn
from agent.engineprofile import Layer, Profile, slowest_first
from agent.errors import ConfigError
from agent.modelsettings import engine_options, overrides
from agent.vision.preprocess import Preprocessor
from engines.describe import describe_model
from engines.graph import INPUT_NAME, bake
from engines.onnxfile import read_model
from engines.ortprofile import profile as profile_ort

REFORMAT = "Reformat"
"""What TensorRT's layers are called that compute nothing."""

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.config import ModelConfig
    from agent.enginecandidates import Candidate, Workshop
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
    layers, run_ms, route = PROFILERS[wanted[0].backend](workshop, wanted[0], options, runs)
    facts = _facts(workshop.info, options, batch, route)
    return Profile(backend, precision, slowest_first(layers), run_ms, runs, facts)


def as_it_is(config: ModelConfig, *, batch: int, runs: int) -> Profile:
    """Profile a file whose weights are quantised already, with ONNX Runtime.

    Nothing can be built from such a file; it serves as it is.

    Raises:
        EngineError: it cannot be read or run.
        ConfigError: settings that do not fit it.
    """
    file = read_model(config.path)
    info = describe_model(file, overrides(SLOT, config))
    options = engine_options(config, live=True, cache_dir=None)
    batch = info.max_batch or batch
    found = profile_ort(
        bake(file.model, info).SerializeToString(),
        {INPUT_NAME: images_for(info, batch)},
        runs=runs,
        threads=options.run.threads,
        providers=options.run.providers,
    )
    layers = [Layer(n.name, n.op, n.dtype, n.ms, n.shape) for n in found.nodes]
    facts = _facts(info, options, batch, "the file as it is")
    return Profile("onnxruntime", info.precision, slowest_first(layers), found.run_ms, runs, facts)


def _facts(info: ModelInfo, options: Options, batch: int, route: str) -> dict[str, object]:
    return {
        "threads": options.run.threads,
        "batch": batch,
        "width": info.width,
        "height": info.height,
        "route": route,
    }


def images_for(info: ModelInfo, batch: int) -> NDArray[np.uint8]:
    """A drawn picture as the engine takes it: BGR, uint8, [batch, height, width, 3]."""
    images = np.empty((batch, info.height, info.width, 3), np.uint8)
    preprocessor = Preprocessor(info.resize, info.width, info.height)
    for image in images:
        preprocessor.write(drawn(), image)
    return images


Profiler = Callable[["Workshop", "Candidate", "Options", int], "tuple[list[Layer], float, str]"]
"""Workshop, candidate, options, runs: gives layers, a whole run's milliseconds, the route."""


def _ort(
    workshop: Workshop, candidate: Candidate, options: Options, runs: int
) -> tuple[list[Layer], float, str]:
    product = workshop.product(candidate, options)
    found = profile_ort(
        product.blob,
        {INPUT_NAME: images_for(workshop.info, options.run.batch)},
        runs=runs,
        threads=options.run.threads,
        providers=options.run.providers,
    )
    layers = [Layer(n.name, n.op, n.dtype, n.ms, n.shape) for n in found.nodes]
    return layers, found.run_ms, product.route


def _openvino(
    workshop: Workshop, candidate: Candidate, options: Options, runs: int
) -> tuple[list[Layer], float, str]:
    from engines.openvinobackend import unpack  # noqa: PLC0415 - optional
    from engines.openvinoprofile import profile  # noqa: PLC0415

    product = workshop.product(candidate, options)
    precision, model = unpack(product.blob)
    images = images_for(workshop.info, options.run.batch)
    found = profile(model, precision, images, runs=runs, threads=options.run.threads)
    layers = [Layer(n.name, n.kind, n.precision, n.ms, n.shape) for n in found.layers]
    return layers, found.run_ms, product.route


def _tensorrt(
    workshop: Workshop, candidate: Candidate, options: Options, runs: int
) -> tuple[list[Layer], float, str]:
    from engines.trt.backend import system  # noqa: PLC0415 - optional
    from engines.trt.profile import layer_times, stage_times  # noqa: PLC0415
    from engines.trt.run import TrtEngine  # noqa: PLC0415

    product, engine = workshop.build(candidate, options.run)
    assert isinstance(engine, TrtEngine)
    try:
        rows = layer_times(system().api, engine, options.run.batch, runs)
        stages = stage_times(engine, options.run.batch, runs)
        kinds = {layer.name: layer.kind for layer in engine.facts.layers}
    finally:
        engine.close()
    layers = [
        Layer(
            row.name,
            REFORMAT if row.reformat else kinds.get(row.name, ""),
            row.precision,
            row.ms,
        )
        for row in rows
    ]
    whole = [stage.copy_in_ms + stage.compute_ms + stage.copy_out_ms for stage in stages]
    return layers, float(np.mean(whole)), product.route


PROFILERS: dict[BackendName, Profiler] = {
    "onnxruntime": _ort,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
