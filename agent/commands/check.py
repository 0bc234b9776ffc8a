"""`vigia check`."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    network: Annotated[
        bool, typer.Option("--network/--no-network", help="Open cameras and the broker.")
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Check the configuration, load the models, open the cameras and the broker.

    Exit code 0 if all is well, 1 if something fails, 2 for a mistake in the configuration.

    Example: [bold]vigia check -c /etc/vigia/agent.yaml --json[/bold]
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from agent.check import check as look
    from agent.configfile import load

    findings = look(load(config), network=network)
    if json_output:
        typer.echo(json.dumps([asdict(f) for f in findings]))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.status == "ok" else "[red]FAIL[/red]"
            console.print(f"{mark} {finding.name}: ", end="")
            console.print(finding.text, markup=False)
    raise typer.Exit(0 if all(f.status == "ok" for f in findings) else 1)
