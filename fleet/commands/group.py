"""`vigia fleet group`: devices that are assigned together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

app = typer.Typer(no_args_is_help=True, help="Groups of devices, that are assigned together.")

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]
DevicesArgument = Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Device ids.")]


@app.command("create")
def create(
    folder: FolderArgument,
    group: GroupArgument,
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="[DEVICE...]", help="Its first devices.")
    ] = None,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a group, with or without devices.

    Example: [bold]vigia fleet group create fleet hall-2 line-1 line-2[/bold]
    """
    from fleet.groups import add_to_group, create_group
    from fleet.roles import Permission

    members = sorted(set(devices or ()))
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.GROUP, actor)
        with fleet.database.session() as session:
            create_group(session, group, int(fleet.now()))
            add_to_group(session, group, members)
            fleet.audit.record(session, who, "group.create", {"group": group, "devices": members})
    tell(
        json_output,
        {"group": group, "devices": members},
        f"group {group}: {', '.join(members) or 'no devices yet'}",
    )


@app.command("add")
def add(
    folder: FolderArgument,
    group: GroupArgument,
    devices: DevicesArgument,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put devices into a group; a device may be in several.

    Example: [bold]vigia fleet group add fleet hall-2 line-3[/bold]
    """
    from fleet.groups import add_to_group

    _change(add_to_group, "add", folder, group, devices, actor, passphrase_file, json_output)


@app.command("take")
def take(
    folder: FolderArgument,
    group: GroupArgument,
    devices: DevicesArgument,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take devices out of a group; they keep what they run.

    Example: [bold]vigia fleet group take fleet hall-2 line-3[/bold]
    """
    from fleet.groups import take_from_group

    _change(take_from_group, "take", folder, group, devices, actor, passphrase_file, json_output)


@app.command("remove")
def remove(
    folder: FolderArgument,
    group: GroupArgument,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Remove a group; its devices stay in the fleet.

    Example: [bold]vigia fleet group remove fleet hall-2[/bold]
    """
    from fleet.groups import remove_group
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.GROUP, actor)
        with fleet.database.session() as session:
            remove_group(session, group)
            fleet.audit.record(session, who, "group.remove", {"group": group})
    tell(json_output, {"removed": group}, f"group {group} is removed")


@app.command("list")
def list_groups(folder: FolderArgument, json_output: JsonOption = False) -> None:
    """Show all groups and their devices.

    Example: [bold]vigia fleet group list fleet[/bold]
    """
    from fleet.groups import groups

    with opened(folder) as fleet, fleet.database.reading() as session:
        found = groups(session)
    lines = [f"{name}: {', '.join(devices) or 'no devices'}" for name, devices in found.items()]
    tell(json_output, found, *(lines or ["there are no groups"]))


def _change(
    change: Callable[[Session, str, Iterable[str]], None],
    action: str,
    folder: Path,
    group: str,
    devices: list[str],
    actor: str | None,
    passphrase_file: Path | None,
    json_output: bool,
) -> None:
    from fleet.groups import groups
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.GROUP, actor)
        with fleet.database.session() as session:
            change(session, group, devices)
            session.flush()
            members = groups(session)[group]
            details = {"group": group, "devices": sorted(set(devices))}
            fleet.audit.record(session, who, f"group.{action}", details)
    shown = f"group {group}: {', '.join(members) or 'no devices'}"
    tell(json_output, {"group": group, "devices": members}, shown)
