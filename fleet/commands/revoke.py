"""`vigia fleet revoke`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    YesOption,
    opened,
    tell,
)


def revoke(
    folder: FolderArgument,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.")],
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="For the audit log, e.g. stolen.")
    ] = "",
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Put a device out of the fleet: a stolen one, or one that is no longer used.

    It is assigned nothing any more, and the broker refuses its certificate and cuts off what it
    still says, as soon as it has read its lists again (SIGHUP). What the device has already, it
    can still read: models that must not be known have to be replaced by others.

    Example: [bold]vigia fleet revoke fleet line-7 --why stolen[/bold]
    """
    from fleet.enrolling import revoke as put_out
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.REVOKE, actor)
        if not yes:
            typer.confirm(f"Revoke {device}? It cannot be undone.", abort=True, err=True)
        row = put_out(fleet, who, device, why)
        broker = fleet.layout.broker
    tell(
        json_output,
        {"revoked": row.id, "serial": row.serial, "broker_files": str(broker)},
        f"device {device} is revoked",
        "now have the broker read its lists again: systemctl reload mosquitto, or kill -HUP it",
    )
