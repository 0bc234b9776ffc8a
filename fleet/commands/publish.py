"""`vigia fleet publish`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)


def publish(
    folder: FolderArgument,
    family: Annotated[str | None, typer.Argument(help="Of the bundle.")] = None,
    version: Annotated[str | None, typer.Argument(help="Of the bundle.")] = None,
    withdraw: Annotated[
        bool,
        typer.Option(
            "--withdraw", help="Have the broker forget the bundle; devices that have it keep it."
        ),
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Send also what the broker should hold already.")
    ] = False,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have the broker hold a released bundle and the metadata that names it.

    What was broken off goes on where it was. Without a bundle only the metadata is published, which
    renews it: do so at least once a week, e.g. by a timer.

    Example: [bold]vigia fleet publish fleet yolo 2[/bold]
    """
    from fleet.commands.bars import block_bar
    from fleet.controlling import find_bundle, publish, publish_metadata, withdraw_from_broker
    from fleet.link import Outlet
    from fleet.roles import Permission

    if (family is None) is not (version is None) or (withdraw and family is None):
        raise typer.BadParameter("give FAMILY and VERSION, or, to publish metadata only, neither")
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.RELEASE, actor)
        row = None
        if family is not None and version is not None:
            row = find_bundle(fleet, family, version)
        sent = 0
        with Outlet(fleet.mqtt) as outlet:
            if row is None:
                publish_metadata(fleet, outlet)
                action, shown = "metadata.publish", "the metadata is published"
            elif withdraw:
                with block_bar("withdrawing") as show:
                    withdraw_from_broker(fleet, outlet, row, show)
                action, shown = "bundle.withdraw", f"the broker holds {family} {version} no more"
            else:
                with block_bar("publishing") as show:
                    sent = publish(fleet, outlet, row, show, anew=anew)
                action = "bundle.publish"
                shown = f"the broker holds {family} {version}; {sent} blocks were sent"
        with fleet.database.session() as session:
            details = {} if row is None else {"bundle": f"{family} {version}", "blocks": sent}
            fleet.audit.record(session, who, action, details)
    tell(json_output, {"done": action, "blocks": sent}, shown)
