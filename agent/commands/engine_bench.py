"""`vigia engine bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from agent.enginecourse import Row


def bench(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    backend: Annotated[
        str, typer.Option(help="auto (all that are here), or names: onnxruntime,openvino,tensorrt.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto (all that are computed here), or names: fp32,bf16,fp16,int8.")
    ] = "auto",
    batch: Annotated[str, typer.Option(help="Batch sizes, e.g. 1,2,4,8.")] = "1",
    size: Annotated[
        str, typer.Option(help="Input sizes of a dynamic model, e.g. 320,480,640x384.")
    ] = "",
    arrangement: Annotated[
        str,
        typer.Option(help="latency (one inference over all cores), throughput (one a core), both."),
    ] = "latency",
    seconds: Annotated[float, typer.Option(help="For each engine in each setting.", min=0.1)] = 5.0,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures, or a video; int8 needs it.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="Measure with this picture; default: 1280x720 of shapes and noise."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use.", min=1)] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it into this file: *.png, *.svg or *.pdf.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure a model's engines side by side: every stage of a picture's way, and the rate.

    Engines take turns, everything is warm, and ratios are to FP32 on ONNX Runtime, which always
    runs along. Engines are built for the purpose and not judged: see [bold]vigia engine
    build[/bold] for what is also right.

    Example: [bold]vigia engine bench yolov8n.onnx --batch 1,4 --plot bench.png[/bold]
    """
    import json

    from agent.commands.output import output
    from agent.config import ModelConfig
    from agent.configfile import from_options
    from agent.enginebench import Sweep, arrangements, as_dict, names, numbers, sizes, sweep
    from agent.enginecandidates import Workshop
    from agent.enginehost import circumstances
    from agent.enginepictures import bench_picture

    settings = from_options(
        ModelConfig,
        {"path": model, "threads": threads, "quantize": {"calibration": calibration}},
    )
    wanted = Sweep(
        backends=names(backend),
        precisions=names(precision),
        arrangements=arrangements(arrangement),
        batches=numbers("--batch", batch),
        sizes=sizes(size),
        seconds=seconds,
    )
    with output(stderr=True).status("building ...") as status:
        where = circumstances(settings)
        rows = sweep(settings, wanted, [bench_picture(picture)], Workshop, status.update)
    if plot is not None:
        from agent.engineplot import draw

        draw(rows, f"{model.name} on {where['cpu']}, {where['threads']} threads", plot)
    if json_output:
        typer.echo(
            json.dumps({"model": str(model), "host": where, "rows": [as_dict(row) for row in rows]})
        )
        return
    output().print(_table(rows))


def _table(rows: list[Row]) -> Table:
    from rich.table import Table

    from agent.commands.output import plain
    from agent.enginecourse import STAGES

    stages = [stage for stage in STAGES if any(stage in row.stages for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("backend", "precision"):
        table.add_column(heading)
    for heading in (*stages, "whole p50", "p95", "p99", "pictures/s", "x fp32"):
        table.add_column(heading, justify="right")
    setting = None
    for row in rows:
        if row.setting != setting:
            table.add_row(f"[dim]{row.setting.name}[/dim]")
            setting = row.setting
        if row.reason or row.total is None:
            table.add_row(row.candidate.backend, row.candidate.precision, plain(row.reason))
            continue
        proven = row.precision != row.candidate.precision
        table.add_row(
            row.candidate.backend,
            f"{row.candidate.precision} (ran {row.precision})" if proven else row.precision,
            *(f"{row.stages[s].p50_ms:.2f}" if s in row.stages else "-" for s in stages),
            f"{row.total.p50_ms:.2f}",
            f"{row.total.p95_ms:.2f}",
            f"{row.total.p99_ms:.2f}",
            f"{row.per_s:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
        )
    return table
