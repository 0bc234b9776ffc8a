"""`vigia engine build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from agent.plans import PlanRequest, Plans, Report


def build(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file; leave it out with --config.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto (the fastest that passes), fp32, bf16, fp16 or int8.")
    ] = "auto",
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or tensorrt.")] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures, or a video, of what the cameras see; for int8."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth of these pictures (JSON), for mAP.")
    ] = None,
    images: Annotated[int, typer.Option(help="Pictures used at the most.", min=8)] = 256,
    method: Annotated[
        str, typer.Option(help="How a tensor's range is found: percentile, max or entropy.")
    ] = "percentile",
    keep_float: Annotated[
        str,
        typer.Option(help="What stays in floating point in the first int8 engine: head or none."),
    ] = "head",
    threads: Annotated[int | None, typer.Option(help="Cores to use.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Frames run together at the most.", min=1)] = 1,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where built engines are kept; default: the user's cache.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Take the settings of --slot from this file instead."),
    ] = None,
    slot: Annotated[str, typer.Option(help="Model slot of --config.")] = "main",
    fresh: Annotated[bool, typer.Option("--fresh", help="Build even if it is cached.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Build the engine that serves a model best on this machine, and prove it.

    Every library that is installed here is tried in every precision that it really computes in.
    Each engine is compared with FP32 on ONNX Runtime on pictures that it was not calibrated with;
    those that pass are timed in turn, and the fastest is kept. int8 must be faster by a margin, and
    its worst layers go back to floating point if it does not pass at once. The engine is sealed in
    the cache, where `vigia run` finds it if it has the same settings.

    Example: [bold]vigia engine build yolov8n.onnx --calibration pictures/[/bold]
    """
    import json

    from agent.commands.output import output
    from agent.enginereport import summary, table
    from agent.plans import Plans, report_of

    request = slot_request(
        model,
        config,
        slot,
        cache_dir,
        {
            "precision": precision,
            "backend": backend,
            "quantize": {
                "calibration": calibration,
                "truth": truth,
                "images": images,
                "method": method,
                "keep_float": keep_float,
            },
            "threads": threads,
            "batch": batch,
        },
    )
    plans = Plans(request)
    found = None if fresh else plans.find()
    report = _build(plans, fresh=fresh) if found is None else report_of(found)
    if json_output:
        typer.echo(json.dumps({**report.value, "plan": report.plan, "cached": report.cached}))
        return
    console = output()
    console.print(table(report.value))
    console.print(summary(report))


def _build(plans: Plans, *, fresh: bool) -> Report:
    """What is needed for building takes a fifth of a second to import."""
    from agent.building import build
    from agent.commands.progress import progress

    with progress() as tell:
        return build(plans, tell, fresh=fresh)


def slot_request(
    model: Path | None,
    config: Path | None,
    slot: str,
    cache_dir: Path | None,
    settings: dict[str, Any],
) -> PlanRequest:
    """What is wanted: a slot of a configuration file as it is, or what the options say."""
    from agent.capture.base import is_live
    from agent.config import ModelConfig
    from agent.configfile import from_options, load
    from agent.errors import ConfigError
    from agent.plans import PlanRequest, default_cache_dir

    if (config is None) == (model is None):
        raise ConfigError("give either an ONNX file, or --config with --slot")
    if config is None:
        chosen = from_options(ModelConfig, {"path": model, **settings})
        return PlanRequest(slot, chosen, True, cache_dir or default_cache_dir())
    whole = load(config)
    if slot not in whole.models:
        raise ConfigError(f"{config}: there is no model {slot!r} in `models`; check --slot")
    return PlanRequest(
        slot,
        whole.models[slot],
        any(c.enabled and c.model == slot and is_live(c) for c in whole.cameras.values()),
        cache_dir or whole.pipeline.cache_dir or default_cache_dir(),
        whole.pipeline.cache_max_mb,
    )
