"""`vigia service`: the systemd service of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption

app = typer.Typer(help="Install, remove and look at the systemd service.", no_args_is_help=True)

NOT_RUNNING = 3
"""As `systemctl status` and the LSB have it."""


@app.command()
def install(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A configuration to begin with; one in place stays."),
    ] = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Leave it stopped.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not try the configuration first.")
    ] = False,
) -> None:
    """Make this installation the service; again after an upgrade, or new credentials.

    Keeps configuration and state. If the new release does not become ready, the one before it
    serves again. Exit code 0 when done, 1 when that failed.

    Example: [bold]vigia service install --config agent.yaml[/bold]
    """
    from agent import service
    from agent.servicelayout import Layout
    from agent.servicemanager import Manager

    _need_root()
    report = service.install(
        Manager(), Layout(), config=config, start=not no_start, check=not no_check
    )
    _show(report.lines)


@app.command()
def uninstall(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove configuration, state, cache and the user.")
    ] = False,
) -> None:
    """Stop and remove the service; configuration and state stay.

    Example: [bold]vigia service uninstall --purge[/bold]
    """
    from agent import service
    from agent.servicelayout import Layout
    from agent.servicemanager import Manager

    _need_root()
    _show(service.uninstall(Manager(), Layout(), purge=purge).lines)


@app.command()
def status(json_output: JsonOption = False) -> None:
    """What systemd says of the service. Exit code 0 if it is active, 3 if not.

    Example: [bold]vigia service status[/bold]
    """
    import json

    from agent.servicelayout import Layout
    from agent.servicemanager import Manager

    state = Manager().state()
    current = Layout().current
    values = {**state.values, "Release": str(current.resolve()) if current.is_symlink() else ""}
    if json_output:
        typer.echo(json.dumps(values))
    elif not state.installed:
        typer.echo("the service is not installed; see: vigia service install --help")
    else:
        for key, value in values.items():
            if value and value != "[not set]":
                typer.echo(f"{key}: {value}")
    raise typer.Exit(0 if state.active else NOT_RUNNING)


def _need_root() -> None:
    import os

    from agent.errors import ServiceError

    if os.geteuid() != 0:
        raise ServiceError("the service can only be changed by root; use sudo")


def _show(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
