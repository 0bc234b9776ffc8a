"""`vigia bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption


def bench(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    seconds: Annotated[float, typer.Option(help="For each measurement.", min=0.5)] = 5.0,
    width: Annotated[int, typer.Option(help="Picture width, pixels.", min=16)] = 1280,
    height: Annotated[int, typer.Option(help="Picture height, pixels.", min=16)] = 720,
    fps: Annotated[float, typer.Option(help="Rate of the live source.", min=0.1)] = 30.0,
    threads: Annotated[int | None, typer.Option(help="Cores to use.", min=1)] = None,
    json_output: JsonOption = False,
) -> None:
    """Measure a model on this machine: bare engine, whole pipeline, age of live results.

    Both arrangements are measured: [bold]latency[/bold] (one inference over all cores) and
    [bold]throughput[/bold] (one a core). Quote ratios: machines differ and drift.

    Example: [bold]vigia bench yolov8n.onnx --seconds 10[/bold]
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from agent.benchmark import bench_model

    console = Console(stderr=True)
    with console.status("measuring …") as status:
        rows = bench_model(
            model,
            seconds=seconds,
            size=(width, height),
            fps=fps,
            threads=threads,
            tell=lambda what: status.update(f"measuring: {what}"),
        )
    if json_output:
        typer.echo(json.dumps(rows))
        return
    table = Table(title=f"{model.name}, {width}x{height}")
    for heading in ("arrangement", "what", "per second", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading in ("arrangement", "what") else "right")
    for row in rows:
        values = (f"{row[key]:.1f}" for key in ("per_s", "p50", "p95", "p99"))
        table.add_row(str(row["arrangement"]), str(row["what"]), *values)
    Console().print(table)
