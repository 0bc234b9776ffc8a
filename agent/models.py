"""From a model slot of the configuration to a model that is loaded, warm and ready.

What serves at once is the engine that was built for exactly this slot, if there is one, else FP32
on ONNX Runtime. Building is another matter: `agent.building`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.detection import ModelRef
from agent.errors import ConfigError
from agent.memory import give_back
from agent.modelsettings import postprocess_settings
from agent.pipeline.worker import LoadedModel
from agent.plans import PlanRequest, Plans, default_cache_dir
from agent.vision.decode import Decoder
from engines import ort
from engines.errors import EngineError
from engines.graph import bake

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import ModelConfig
    from engines.base import Engine
    from engines.plan import Plan

log = logging.getLogger(__name__)

WARM_UP_RUNS = 2
"""The first run allocates and packs; the second shows that nothing is left to do."""


def load_model(
    slot: str, config: ModelConfig, *, live: bool, cache_dir: Path | None = None
) -> LoadedModel:
    """Load the engine that is ready for a slot.

    Args:
        slot: its name in the configuration.
        config: its settings.
        live: whether a live camera uses it, which decides the default arrangement.
        cache_dir: where built engines are kept; None for `default_cache_dir()`.

    Raises:
        EngineError: the file or the runtime.
        ConfigError: settings that do not fit the model.
    """
    return load_ready(Plans(PlanRequest(slot, config, live, cache_dir or default_cache_dir())))


def load_ready(plans: Plans) -> LoadedModel:
    """Load the built engine of a slot, or FP32 on ONNX Runtime where there is none.

    Raises:
        EngineError: not even the latter can be loaded.
        ConfigError: settings that do not fit the model.
    """
    try:
        plan = plans.find()
        if plan is not None:
            return load_plan(plans, plan)
    except (EngineError, ConfigError) as error:
        log.warning("model %s: %s; FP32 on ONNX Runtime serves", plans.request.slot, error)
    return load_reference(plans)


def load_reference(plans: Plans) -> LoadedModel:
    """Load FP32 on ONNX Runtime, whatever has been built.

    Raises:
        EngineError: it cannot be loaded.
        ConfigError: settings that do not fit the model.
    """
    return _loaded(plans, _reference(plans))


def load_plan(plans: Plans, plan: Plan) -> LoadedModel:
    """Load a built engine.

    Raises:
        EngineError: it cannot be loaded.
        ConfigError: settings that do not fit the model.
    """
    return _loaded(plans, plans.load(plan))


def _reference(plans: Plans) -> Engine:
    model = bake(plans.read_model(), plans.info)
    return ort.load(model.SerializeToString(), plans.info.precision, plans.options.run)


def _loaded(plans: Plans, engine: Engine) -> LoadedModel:
    """Join an engine with what the pipeline needs beside it; closes the engine on an error."""
    slot, config, info = plans.request.slot, plans.request.config, plans.info
    try:
        settings = postprocess_settings(slot, config, info)
        warm_up(engine, info.max_batch or 1)
    except (EngineError, ConfigError):
        engine.close()
        raise
    give_back()
    ref = ModelRef(
        slot=slot,
        name=info.name,
        digest=info.digest,
        backend=engine.backend,
        precision=engine.precision,
        names=info.names,
    )
    log.info(
        "model %s: %s, %s, layout %s, %dx%d, %s on %s",
        slot,
        info.name,
        info.task.value,
        info.layout.value,
        info.width,
        info.height,
        engine.precision,
        engine.backend,
    )
    batch = min(config.batch, info.max_batch or config.batch)
    return LoadedModel(ref, info, engine, Decoder(info, settings), batch)


def warm_up(engine: Engine, batch: int) -> None:
    """Run the engine on black images, so that the first frame is not the slow one.

    Raises:
        InferenceError: the engine does not run.
    """
    context = engine.create_context(batch)
    try:
        for _ in range(WARM_UP_RUNS):
            context.infer()
    finally:
        context.close()
