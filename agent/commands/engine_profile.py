"""`vigia engine profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from agent.engineprofile import Layer, Profile


def profile(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    backend: Annotated[
        str, typer.Option(help="onnxruntime, openvino or tensorrt.")
    ] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8.")] = "fp32",
    batch: Annotated[int, typer.Option(help="Pictures of one inference.", min=1)] = 1,
    runs: Annotated[int, typer.Option(help="Inferences measured.", min=1, max=2000)] = 50,
    top: Annotated[int, typer.Option(help="Layers shown; 0 for all.", min=0)] = 20,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures, or a video; int8 needs it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use.", min=1)] = None,
    json_output: JsonOption = False,
) -> None:
    """Show where the time of an inference goes: layer by layer, slowest first.

    The layers are those that the library really runs, after it has joined and changed what it was
    given. Those that only change type or layout (reformats) are added up: where they take much, the
    precision does not pay. The profiler itself makes everything a little slower. A file that is
    quantised already is profiled as it is, with ONNX Runtime.

    Example: [bold]vigia engine profile yolov8n.onnx --top 10[/bold]
    """
    import json

    from agent.commands.output import output
    from agent.config import ModelConfig
    from agent.configfile import from_options
    from agent.enginecandidates import Workshop
    from agent.enginehost import circumstances
    from agent.engineprofile import as_dict, by_op, warnings
    from agent.engineprofiler import as_it_is, run
    from engines.describe import describe

    settings = from_options(
        ModelConfig,
        {"path": model, "threads": threads, "quantize": {"calibration": calibration}},
    )
    with output(stderr=True).status("building and profiling ..."):
        if describe(model).precision == "int8":
            result = as_it_is(settings, batch=batch, runs=runs)
        else:
            result = run(Workshop(settings), backend, precision, batch=batch, runs=runs)
    if json_output:
        shown = as_dict(result, top or None)
        typer.echo(json.dumps({"model": str(model), "host": circumstances(settings), **shown}))
        return
    console = output()
    console.print(_table(result, result.layers[: top or None], "layer"))
    if top and len(result.layers) > top:
        console.print(f"... and {len(result.layers) - top} more: --top 0", style="dim")
    console.print()
    console.print(_table(result, by_op(result.layers), "operation"))
    console.print()
    console.print(
        f"{result.precision} on {result.backend}: {result.run_ms:.2f} ms a run with the profiler, "
        f"of that {result.total_ms:.2f} ms in {len(result.layers)} layers; reformats "
        f"{result.reformat_ms:.2f} ms, {result.reformat_share:.0%}"
    )
    for sentence in warnings(result):
        console.print(f"warning: {sentence}", style="yellow")


def _table(result: Profile, layers: tuple[Layer, ...], first: str) -> Table:
    from rich.table import Table

    from agent.commands.output import plain

    single = first == "layer"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    if single:
        table.add_column("operation")
    table.add_column("computes in")
    if single:
        table.add_column("output", justify="right")
    for heading in ("ms", "share", *(() if single else ("count",))):
        table.add_column(heading, justify="right")
    for layer in layers:
        shape = "x".join(str(n) for n in layer.shape)
        table.add_row(
            plain(layer.name),
            *((plain(layer.op),) if single else ()),
            layer.precision or "-",
            *((shape or "-",) if single else ()),
            f"{layer.ms:.3f}",
            f"{layer.ms / (result.total_ms or 1):.1%}",
            *(() if single else (str(layer.count),)),
            style="yellow" if layer.reformat else "",
        )
    return table
