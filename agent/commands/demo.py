"""`vigia demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption


def demo(
    seconds: Annotated[float, typer.Option(help="How long to show.", min=1)] = 20.0,
    camera: Annotated[
        str | None, typer.Option(metavar="URL", help="Your own camera instead of the sample.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Your own ONNX file instead of the sample's.")
    ] = None,
    picture: Annotated[Path, typer.Option(help="Where the annotated picture goes.")] = Path(
        "vigia-demo.jpg"
    ),
    json_output: JsonOption = False,
) -> None:
    """Show it all on this machine: a video through the agent and a real broker to a reader.

    Starts a broker on a free loopback port and the agent on the sample video, shows what a
    subscriber receives, and ends with the figures: rate, latency, messages lost (none), and the
    accuracy of what was received against the ground truth.

    With [bold]--json[/bold], the last line of stdout is the summary as JSON.

    Example: [bold]vigia demo --seconds 10[/bold]
    """
    import json
    import time

    from rich.live import Live
    from rich.table import Table

    from agent.commands.output import board_table, output
    from agent.demo import DemoOptions
    from agent.demo import demo as show

    console = output(stderr=json_output)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        summary = show(
            DemoOptions(seconds, picture.resolve(), camera, model),
            lambda board: live.update(board_table(board, time.monotonic()), refresh=True),
        )
    if json_output:
        typer.echo(json.dumps(summary))
        return
    table = Table(title="summary", show_header=False)
    latency = summary["lat_ms"]
    table.add_row("frames", str(summary["frames"]))
    table.add_row("frames a second", f"{summary['fps']:.1f} (the video's own rate, in real time)")
    table.add_row(
        "capture to result, ms",
        f"p50 {latency['p50']:.1f}, p95 {latency['p95']:.1f}, p99 {latency['p99']:.1f}",
    )
    table.add_row("messages published", str(summary["published"]))
    table.add_row("messages received", str(summary["received"]))
    if summary["map50"] is not None:
        table.add_row("mAP50 of what was received", f"{summary['map50']:.3f}")
    table.add_row("picture", summary["picture"])
    console.print(table)
