"""What the configuration says of a model slot, in the words of `engines` and `agent.vision`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.errors import ConfigError
from agent.vision.decode import PostprocessSettings
from engines.backend import Options, RunOptions, TensorRtOptions
from engines.describe import Overrides
from engines.model import Layout, Resize, Task

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import ModelConfig
    from engines.model import ModelInfo

BYTES_PER_MB = 2**20

TIMING_FOLDER = "timing"
"""Below the folder of built engines."""


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


def engine_options(config: ModelConfig, *, live: bool, cache_dir: Path | None) -> Options:
    """How a slot's engines are built and run.

    Args:
        config: the slot's settings.
        live: whether a live camera uses it, which decides the default arrangement.
        cache_dir: where built engines are kept; TensorRT's timing caches go below it.
    """
    trt = config.tensorrt
    return Options(
        run=RunOptions(
            arrangement=config.arrangement or ("latency" if live else "throughput"),
            threads=config.threads or len(os.sched_getaffinity(0)),
            batch=config.batch,
            providers=tuple(config.providers),
        ),
        tensorrt=TensorRtOptions(
            workspace_bytes=_bytes(trt.workspace_mb),
            level=trt.level,
            dla_core=trt.dla_core,
            preprocess=trt.preprocess,
            cuda_graphs=trt.cuda_graphs,
            timeout_s=trt.build_timeout_s,
            memory_bytes=_bytes(trt.build_memory_mb),
            timing_folder=None if cache_dir is None else cache_dir / TIMING_FOLDER,
        ),
    )


def _bytes(megabytes: int | None) -> int | None:
    return None if megabytes is None else megabytes * BYTES_PER_MB
