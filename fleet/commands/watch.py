"""`vigia fleet watch`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.options import FolderArgument, JsonOption, PassphraseOption, opened


def watch(
    folder: FolderArgument,
    campaign: Annotated[
        str | None, typer.Argument(help="Name of the campaign; default: the one that goes on.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="End after so long, whatever the campaign does.", min=0)
    ] = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Drive a campaign to its end: hear signed reports, open stages, answer devices, and show it.

    It can be ended and started again at any time; what devices reported meanwhile is heard then.
    Exit code 0 if the campaign succeeded (or still goes on), 1 if it stopped.

    Example: [bold]vigia fleet watch fleet[/bold]
    """
    from fleet.commands.driving import drive
    from fleet.controlling import open_rollout, running_campaign
    from fleet.link import Outlet

    with opened(folder, passphrase_file) as fleet:
        name = campaign or running_campaign(fleet)
        with Outlet(fleet.mqtt) as outlet:
            drive(open_rollout(fleet, outlet, name), json_output=json_output, seconds=seconds)
