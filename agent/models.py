"""From a model slot of the configuration to a model that is loaded, warm and ready."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.detection import ModelRef
from agent.errors import ConfigError
from agent.memory import give_back
from agent.pipeline.worker import LoadedModel
from agent.vision.decode import Decoder, PostprocessSettings
from engines import ort
from engines.cache import BlobCache
from engines.describe import Overrides, describe_model
from engines.errors import EngineError
from engines.graph import bake
from engines.model import Layout, Resize, Task
from engines.onnxfile import read_model

if TYPE_CHECKING:
    import onnx

    from agent.config import ModelConfig
    from engines.base import Engine
    from engines.model import ModelInfo

log = logging.getLogger(__name__)

WARM_UP_RUNS = 2
"""The first run allocates and packs; the second shows that nothing is left to do."""


def default_cache_dir() -> Path:
    """Where prepared models are kept if the configuration does not say: the user's cache folder.

    systemd's `CacheDirectory=` wins, then the XDG base directory specification's folder.
    """
    for variable, below in (("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "vigia")):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / below
    return Path.home() / ".cache" / "vigia"


def overrides(slot: str, config: ModelConfig) -> Overrides:
    """What the configuration says of the model file, for `engines.describe`.

    Raises:
        ConfigError: the file of class names cannot be read.
    """
    names = config.names
    if names is not None and not isinstance(names, list):
        try:
            names = [n for n in names.read_text("utf-8").splitlines() if n.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"models.{slot}.names: cannot read {config.names}: {error}; "
                "give a text file with one class name a line"
            ) from error
    return Overrides(
        name=config.name,
        task=Task(config.task) if config.task else None,
        layout=Layout(config.layout) if config.layout else None,
        names=tuple(names) if names is not None else None,
        resize=Resize(config.resize) if config.resize else None,
        width=config.input_width,
        height=config.input_height,
        mean=config.mean,
        std=config.std,
    )


def postprocess_settings(slot: str, config: ModelConfig, info: ModelInfo) -> PostprocessSettings:
    """Thresholds and filters by class id.

    Raises:
        ConfigError: a class name that the model does not have.
    """
    ids = {name: number for number, name in enumerate(info.names)}

    def class_id(key: str, name: str) -> int:
        if name not in ids:
            raise ConfigError(
                f"models.{slot}.{key}: the model has no class {name!r}; "
                f"it has {', '.join(info.names[:20])}{' …' if len(info.names) > 20 else ''}"  # noqa: PLR2004 - enough to recognise it
            )
        return ids[name]

    return PostprocessSettings(
        confidence=config.confidence,
        class_confidence={
            class_id("class_confidence", n): value for n, value in config.class_confidence.items()
        },
        iou=config.iou,
        agnostic=config.agnostic_nms,
        classes=None
        if config.classes is None
        else frozenset(class_id("classes", n) for n in config.classes),
        max_detections=config.max_detections,
    )


def load_model(
    slot: str, config: ModelConfig, *, live: bool, cache_dir: Path | None = None
) -> LoadedModel:
    """Read, prepare, load and warm up a model.

    Args:
        slot: its name in the configuration.
        config: its settings.
        live: whether a live camera uses it, which decides the default arrangement.
        cache_dir: where prepared models are kept; None for `default_cache_dir()`.

    Raises:
        EngineError: the file or the runtime.
        ConfigError: settings that do not fit the model.
    """
    file = read_model(config.path)
    info = describe_model(file, overrides(slot, config))
    settings = postprocess_settings(slot, config, info)
    engine = load_engine(
        bake(file.model, info), config, info, live=live, cache_dir=cache_dir or default_cache_dir()
    )
    batch = min(config.batch, info.max_batch or config.batch)
    try:
        warm_up(engine, info.max_batch or 1)
    except EngineError:
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
    return LoadedModel(ref, info, engine, Decoder(info, settings), batch)


def load_engine(
    model: onnx.ModelProto, config: ModelConfig, info: ModelInfo, *, live: bool, cache_dir: Path
) -> ort.OrtEngine:
    """Load a baked graph with ONNX Runtime, arranged as configured.

    Raises:
        EngineError: the runtime refuses it.
    """
    options = ort.OrtOptions(
        providers=tuple(config.providers),
        arrangement=config.arrangement or ("latency" if live else "throughput"),
        threads=config.threads or len(os.sched_getaffinity(0)),
        cache=BlobCache(cache_dir),
    )
    return ort.load(model.SerializeToString(), info.precision, options)


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
