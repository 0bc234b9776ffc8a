"""`vigia fleet rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.campaignoptions import DevicesOption, GroupsOption, SlotOption
from fleet.commands.obeying import obey
from fleet.commands.options import ActorOption, FolderArgument, JsonOption, PassphraseOption


def rollback(
    folder: FolderArgument,
    device: DevicesOption = None,
    group: GroupsOption = None,
    slot: SlotOption = "main",
    wait: Annotated[float, typer.Option(help="Seconds to wait for answers.", min=0)] = 30.0,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have devices go back to the model before, by a command that you sign.

    A device that is away obeys if it comes back within an hour. Exit code 1 if a device refused or
    did not answer.

    Example: [bold]vigia fleet rollback fleet --group hall-2[/bold]
    """
    obey(
        folder,
        "rollback",
        "rolled back",
        devices=device or (),
        groups=group or (),
        slot=slot,
        wait=wait,
        actor=actor,
        passphrase_file=passphrase_file,
        json_output=json_output,
    )
