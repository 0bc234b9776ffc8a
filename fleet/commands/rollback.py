"""`vigia fleet rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.campaignoptions import DevicesOption, GroupsOption, SlotOption
from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)


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
    from fleet.campaigns import Campaigns
    from fleet.commanding import Hearing, send_commands
    from fleet.controlling import inbox_for
    from fleet.groups import chosen_devices
    from fleet.link import Outlet
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        with fleet.database.reading() as session:
            devices = [row.id for row in chosen_devices(session, device or (), group or ())]
        prefix = fleet.settings.prefix
        inbox = inbox_for(prefix, len(devices))
        hearing = Hearing(Campaigns(fleet.database, fleet.now), prefix, devices, slot)
        with Outlet(fleet.mqtt) as outlet:
            outlet.hear(hearing.filters, inbox)
            sent = send_commands(fleet, who, outlet, devices, slot, "rollback")
            found = hearing.answers(inbox, sent, wait)
    words = {True: "rolled back", False: "refused", None: "no answer"}
    tell(
        json_output,
        {name: {"done": answer.done, "reason": answer.reason} for name, answer in found.items()},
        *(
            f"{name}: {words[answer.done]}{f': {answer.reason}' if answer.reason else ''}"
            for name, answer in found.items()
        ),
    )
    if not all(answer.done for answer in found.values()):
        raise typer.Exit(1)
