"""`vigia fleet restart`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.campaignoptions import DevicesOption, GroupsOption, SlotOption
from fleet.commands.obeying import obey
from fleet.commands.options import ActorOption, FolderArgument, JsonOption, PassphraseOption


def restart(
    folder: FolderArgument,
    device: DevicesOption = None,
    group: GroupsOption = None,
    slot: SlotOption = "main",
    wait: Annotated[float, typer.Option(help="Seconds to wait for answers.", min=0)] = 30.0,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have agents of devices start anew, by a command that you sign.

    Some settings come into force only so: `vigia fleet config push` says which.

    A device that is away obeys if it comes back within an hour. SLOT only has to be one that the
    devices have. Exit code 1 if a device refused or did not answer.

    Example: [bold]vigia fleet restart fleet --device line-7[/bold]
    """
    obey(
        folder,
        "restart",
        "restarts",
        devices=device or (),
        groups=group or (),
        slot=slot,
        wait=wait,
        actor=actor,
        passphrase_file=passphrase_file,
        json_output=json_output,
    )
