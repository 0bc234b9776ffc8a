"""Shows a campaign while it is driven."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from fleet.commands.rollouttable import as_json, lines, live_table, summary

if TYPE_CHECKING:
    from fleet.rollout import Rollout

REDRAW_S = 0.5


def drive(rollout: Rollout, *, json_output: bool, seconds: float | None = None) -> None:
    """Drive a campaign to its end, or for so many seconds, and exit 1 if it stopped.

    A live table on a terminal, else a line for each change; with JSON only the result.
    """
    import sys

    if json_output or not sys.stdout.isatty():
        _plainly(rollout, seconds, quiet=json_output)
    else:
        _lively(rollout, seconds)
    if json_output:
        typer.echo(as_json(rollout))
    end(rollout)


def end(rollout: Rollout) -> None:
    """Exit 1 if the campaign stopped.

    Raises:
        typer.Exit: it did.
    """
    from fleet.campaign import Status

    if rollout.campaign.status is Status.STOPPED:
        raise typer.Exit(1)


def _plainly(rollout: Rollout, seconds: float | None, *, quiet: bool) -> None:
    told: dict[str, str] = {}
    last = ""
    until = None if seconds is None else time.monotonic() + seconds
    goes_on = True
    while goes_on and (until is None or time.monotonic() < until):
        goes_on = rollout.advance()
        if quiet:
            continue
        for line in lines(rollout, told):
            typer.echo(line)
        if summary(rollout.campaign) != last:
            last = summary(rollout.campaign)
            typer.echo(last)


def _lively(rollout: Rollout, seconds: float | None) -> None:
    from rich.live import Live

    from agent.commands.output import output

    until = None if seconds is None else time.monotonic() + seconds
    drawn = 0.0
    goes_on = True
    with Live(live_table(rollout), console=output(), auto_refresh=False) as live:
        while goes_on and (until is None or time.monotonic() < until):
            goes_on = rollout.advance()
            if time.monotonic() - drawn >= REDRAW_S or not goes_on:
                drawn = time.monotonic()
                live.update(live_table(rollout), refresh=True)
