"""`vigia cameras`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption

app = typer.Typer(no_args_is_help=True, help="Look at cameras.")


@app.callback()
def cameras() -> None:
    """Look at cameras."""


@app.command("probe")
def probe(
    sources: Annotated[
        list[str] | None, typer.Argument(help="URLs, device numbers or files.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Probe the cameras of this file.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(help="Seconds to wait for each.", min=0.1)] = 10.0,
    json_output: JsonOption = False,
) -> None:
    """Open cameras and say what they give: size, rate, codec, time to the first picture.

    Exit code 0 if all answer, 1 if one does not.

    Example: [bold]vigia cameras probe rtsp://user:secret@10.0.0.7/stream1 0[/bold]
    """
    import json
    from dataclasses import asdict

    from agent.capture.probe import probe_all
    from agent.commands.output import output
    from agent.config import CameraConfig
    from agent.configfile import load
    from agent.errors import ConfigError

    plans = dict(load(config).cameras) if config is not None else {}
    for number, source in enumerate(sources or []):
        if not source:
            raise ConfigError("a source is empty; give a URL, a device number or a file")
        plans[f"source{number}"] = CameraConfig(source=source)
    if not plans:
        raise ConfigError("name sources to probe, or a configuration with -c FILE")
    with output(stderr=True).status(f"opening {len(plans)} cameras ..."):
        reports = probe_all(plans, timeout_s)
    if json_output:
        typer.echo(json.dumps([asdict(r) for r in reports]))
    else:
        for report in reports:
            typer.echo(report.text())
    raise typer.Exit(0 if all(r.ok for r in reports) else 1)
