"""Measures a model's engines side by side, over input sizes, batches and arrangements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.enginecandidates import SLOT
from agent.enginecourse import Arrangement, Row, Setting, compare
from agent.errors import ConfigError
from agent.modelsettings import overrides, postprocess_settings
from agent.vision.decode import Decoder
from engines.describe import describe_model
from engines.errors import EngineError, UnsupportedModelError
from engines.onnxfile import read_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from agent.config import ModelConfig
    from agent.enginecandidates import Candidate, Workshop
    from engines.base import Engine
    from engines.race import Timing


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is measured.

    Attributes:
        backends: names, or "auto".
        precisions: names, or "auto".
        arrangements: which.
        batches: sizes; a model with a fixed batch takes only its own.
        sizes: (width, height) of the input in pixels; empty for the model's own.
        seconds: for each engine in each setting.
    """

    backends: tuple[str, ...] = ("auto",)
    precisions: tuple[str, ...] = ("auto",)
    arrangements: tuple[Arrangement, ...] = ("latency",)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    seconds: float = 5.0


def sweep(
    config: ModelConfig,
    wanted: Sweep,
    pictures: Sequence[NDArray[np.uint8]],
    open_workshop: Callable[[ModelConfig], Workshop],
    tell: Callable[[str], None],
) -> list[Row]:
    """Measure a model in every setting.

    Args:
        config: the model's settings.
        wanted: candidates and settings.
        pictures: BGR, uint8, [h, w, 3].
        open_workshop: `agent.enginecandidates.Workshop`, or one with other backends.
        tell: takes what is being done.

    Raises:
        EngineError: the model cannot be used, or not at a size.
        ConfigError: what is asked for is not to be had.
    """
    rows: list[Row] = []
    for sized in _sized(config, wanted.sizes):
        workshop = open_workshop(sized)
        info = workshop.info
        decoder = Decoder(info, postprocess_settings("bench", sized, info))
        candidates = workshop.candidates(wanted.backends, wanted.precisions)
        for batch in wanted.batches:
            for arrangement in wanted.arrangements:
                setting = Setting(arrangement, batch, info.width, info.height)
                rows += _measure(
                    workshop, candidates, setting, decoder, pictures, wanted.seconds, tell
                )
    return rows


def _sized(config: ModelConfig, wanted: Sequence[tuple[int, int]]) -> list[ModelConfig]:
    """Settings for each size; tried at once, before minutes are spent on the first.

    Raises:
        ConfigError: the model cannot be run at one of them.
        ModelFileError: its file cannot be read.
    """
    found = [
        config.model_copy(update={"input_width": width, "input_height": height})
        for width, height in wanted
    ]
    file = read_model(config.path) if found else None
    for sized in found:
        assert file is not None
        try:
            describe_model(file, overrides(SLOT, sized))
        except UnsupportedModelError as error:
            raise ConfigError(
                f"--size {sized.input_width}x{sized.input_height}: {error}"
            ) from error
    return found or [config]


def names(text: str) -> tuple[str, ...]:
    """Names divided by commas."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Positive whole numbers divided by commas, in rising order.

    Raises:
        ConfigError: something else.
    """
    parts = names(text)
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option} {text}: give positive whole numbers, like 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Input sizes as (width, height), from sides or WIDTHxHEIGHT divided by commas.

    Raises:
        ConfigError: something else.
    """
    found = []
    for part in names(text):
        width, times, height = part.lower().partition("x")
        if not width.isdecimal() or not (height if times else width).isdecimal():
            raise ConfigError(f"--size {text}: give sides or WIDTHxHEIGHT, like 320,640x384")
        found.append((int(width), int(height or width)))
    return tuple(found)


def arrangements(text: str) -> tuple[Arrangement, ...]:
    """One arrangement, or both.

    Raises:
        ConfigError: something else.
    """
    known: dict[str, tuple[Arrangement, ...]] = {
        "latency": ("latency",),
        "throughput": ("throughput",),
        "both": ("latency", "throughput"),
    }
    if text not in known:
        raise ConfigError(f"--arrangement {text}: give latency, throughput or both")
    return known[text]


def _measure(
    workshop: Workshop,
    candidates: Sequence[Candidate],
    setting: Setting,
    decoder: Decoder,
    pictures: Sequence[NDArray[np.uint8]],
    seconds: float,
    tell: Callable[[str], None],
) -> list[Row]:
    """All candidates in one setting."""
    run = replace(workshop.options.run, arrangement=setting.arrangement, batch=setting.batch)
    engines: dict[Candidate, Engine] = {}
    routes: dict[Candidate, str] = {}
    failed: dict[Candidate, Row] = {}
    try:
        for candidate in candidates:
            tell(f"{setting.name}: building {candidate.name}")
            try:
                product, engine = workshop.build(candidate, run)
            except EngineError as error:
                failed[candidate] = Row(candidate, setting, reason=str(error))
                continue
            engines[candidate], routes[candidate] = engine, product.route
        tell(f"{setting.name}: measuring")
        done = {}
        if engines:
            rows = compare(engines, workshop.info, decoder, pictures, setting, seconds)
            done = {row.candidate: replace(row, route=routes[row.candidate]) for row in rows}
    finally:
        for engine in engines.values():
            engine.close()
    return [failed.get(candidate) or done[candidate] for candidate in candidates]


def as_dict(row: Row) -> dict[str, object]:
    """For JSON; see docs/commands.md."""

    def figures(value: Timing | None) -> dict[str, float] | None:
        if value is None:
            return None
        names = ("p50", "p95", "p99")
        return {n: round(getattr(value, f"{n}_ms"), 4) for n in names}

    return {
        "backend": row.candidate.backend,
        "precision": row.candidate.precision,
        "ran_in": row.precision or None,
        "route": row.route,
        "arrangement": row.setting.arrangement,
        "batch": row.setting.batch,
        "width": row.setting.width,
        "height": row.setting.height,
        "lanes": row.lanes,
        "stages_ms": {stage: figures(value) for stage, value in row.stages.items()},
        "total_ms": figures(row.total),
        "per_s": round(row.per_s, 2),
        "ratio": None if row.ratio is None else round(row.ratio, 3),
        "reason": row.reason,
    }
