"""`vigia version`."""

from __future__ import annotations

import typer

from agent.commands import JsonOption


def version(json_output: JsonOption = False) -> None:
    """Print the versions of the agent and of what it stands on.

    Example: [bold]vigia version --json[/bold]
    """
    import json

    from agent.versions import versions

    found = versions()
    if json_output:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name:<12} {value or 'not installed'}")
