"""Finds, builds and loads the two things that `vigia engine verify` compares."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.config import ModelConfig
from agent.errors import ConfigError
from agent.modelsettings import engine_options, overrides
from agent.plans import default_cache_dir, open_cache
from engines import ort
from engines.backend import Options, Precision, Progress, Recipe, RunOptions
from engines.backends import available, unavailable
from engines.describe import describe_model
from engines.errors import BackendError, PlanError
from engines.graph import bake
from engines.onnxfile import read_model
from engines.plan import PlanKey
from engines.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.calibration import PictureSet
    from agent.config import Config
    from agent.verifyspec import Spec
    from engines.backend import Backend, BackendName
    from engines.base import Engine
    from engines.model import ModelInfo
    from engines.plan import Entry


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared.

    Attributes:
        reference: the one that is believed.
        candidate: the one that is judged.
        pictures: folder or video.
        truth: ground truth of these pictures, or None.
        images: pictures to calibrate with at the most, where an int8 engine is built.
        keep_float: what of an int8 engine stays in floating point: "head" or "none".
        config: for slots, and the settings of the gate; or None.
        cache_dir: where plans are; None for the configuration's or the default.
    """

    reference: Spec
    candidate: Spec
    pictures: Path
    truth: Path | None = None
    images: int = 256
    keep_float: str = "head"
    config: Config | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, before it is loaded.

    Attributes:
        spec: how it was named.
        config: settings of its slot, or the defaults.
        info: its model; of a plan, the other side's.
        path: its ONNX file, or None for a plan.
        entry: its plan, or None.
    """

    spec: Spec
    config: ModelConfig
    info: ModelInfo
    path: Path | None
    entry: Entry | None = None

    @property
    def built_from(self) -> str | None:
        """Digest of the model that a plan was built from; None for a model file."""
        if self.entry is None:
            return None
        model = self.entry.key.get("model")
        return str(model["digest"]) if isinstance(model, dict) and "digest" in model else None


def sides(request: Request) -> tuple[Side, Side]:
    """Find the two, and what their models are.

    Raises:
        ConfigError: a mistake in what was named.
        EngineError: a model file or the plans cannot be read.
    """
    first = None if request.reference.plan else _model_side(request.reference, request)
    second = None if request.candidate.plan else _model_side(request.candidate, request)
    other = first or second
    if other is None:
        raise ConfigError(
            "a plan does not say how its model's inputs and outputs lie: name the ONNX file as one "
            "of the two"
        )
    return (
        first or _plan_side(request.reference, other, request),
        second or _plan_side(request.candidate, other, request),
    )


def _model_side(spec: Spec, request: Request) -> Side:
    if spec.slot:
        if request.config is None:
            raise ConfigError(f"{spec.text}: slots are of a configuration; give --config")
        if spec.slot not in request.config.models:
            known = ", ".join(sorted(request.config.models))
            raise ConfigError(f"{spec.text}: there is no model {spec.slot!r}; there: {known}")
        config = request.config.models[spec.slot]
    else:
        assert spec.path is not None
        config = ModelConfig(path=spec.path)
    info = describe_model(read_model(config.path), overrides(spec.slot or "main", config))
    return Side(spec, config, info, config.path)


def _plan_side(spec: Spec, other: Side, request: Request) -> Side:
    found = [e for e in open_cache(_cache_dir(request)).entries() if e.hex.startswith(spec.plan)]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} plans in {_cache_dir(request)} have a key that begins with "
            f"{spec.plan}; `vigia engine list` shows them"
        )
    return Side(spec, other.config, other.info, None, found[0])


def _cache_dir(request: Request) -> Path:
    configured = None if request.config is None else request.config.pipeline.cache_dir
    return request.cache_dir or configured or default_cache_dir()


def load(
    side: Side, request: Request, calibration: PictureSet, tell: Callable[[Progress], None]
) -> Engine:
    """Load one of the two, building it if need be.

    Args:
        side: which one.
        request: what is to be compared.
        calibration: pictures for int8.
        tell: takes progress.

    Raises:
        EngineError: it cannot be built or loaded.
    """
    if side.entry is not None:
        return _load_plan(side, side.entry, request)
    assert side.path is not None
    options = _options(side)
    if side.spec.backend is None:
        graph = bake(read_model(side.path).model, side.info).SerializeToString()
        return ort.load(graph, side.info.precision, options.run)
    assert side.spec.precision is not None
    backend = _backend(side.spec.backend)
    pictures = calibration.prepared_for(side.info)
    source = Source(
        read_model(side.path).model,
        side.info,
        pictures,
        method=side.config.quantize.method,
        threads=options.run.threads,
    )
    recipe = _recipe(source, side.spec.precision, request.keep_float)
    product = backend.build(source, recipe, options, tell)
    return backend.load(product.blob, side.info, options)


def _recipe(source: Source, precision: Precision, keep_float: str) -> Recipe:
    if precision == "int8" and keep_float == "head":
        return Recipe(precision, source.head())
    return Recipe(precision)


def _load_plan(side: Side, entry: Entry, request: Request) -> Engine:
    if entry.problem:
        raise PlanError(f"the plan {entry.hex[:12]} cannot be used: {entry.problem}")
    plan = open_cache(_cache_dir(request)).get(PlanKey(entry.key))
    if plan is None:
        raise PlanError(
            f"the plan {entry.hex[:12]} cannot be opened here: it is damaged, or was sealed with "
            "another device's key"
        )
    backend = _backend(str(plan.sidecar.get("backend")))
    return backend.load(plan.blob, side.info, _options(side))


def _backend(name: BackendName | str) -> Backend:
    for backend in available():
        if backend.name == name:
            return backend
    reasons: dict[Any, str] = dict(unavailable())
    raise BackendError(f"{name} cannot be used here: {reasons.get(name, 'it is not known')}")


def _options(side: Side) -> Options:
    options = engine_options(side.config, live=True, cache_dir=None)
    cores = len(os.sched_getaffinity(0))
    return replace(options, run=RunOptions(threads=cores, providers=options.run.providers))
