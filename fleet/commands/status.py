"""`vigia fleet status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fleet.commands.options import FolderArgument, JsonOption, opened, when

if TYPE_CHECKING:
    from rich.table import Table

CAMPAIGNS_SHOWN = 10
SOON_S = 3 * 86_400
"""Metadata that ends within this time is shown as such: devices refuse what has ended."""


def status(folder: FolderArgument, json_output: JsonOption = False) -> None:
    """Show what the controller knows: devices, bundles, campaigns, and how long metadata is valid.

    Asks no broker and needs no passphrase. What devices say at this moment, [bold]vigia fleet
    watch[/bold] shows.

    Example: [bold]vigia fleet status fleet[/bold]
    """
    import json
    from dataclasses import asdict

    from agent.commands.output import output
    from fleet.inventory import inventory

    with opened(folder) as fleet:
        found = inventory(fleet)
        now = fleet.now()
    if json_output:
        typer.echo(json.dumps(asdict(found)))
        return
    console = output()
    console.print(_devices(found.devices))
    console.print()
    console.print(_bundles(found.bundles))
    if found.campaigns:
        console.print()
        console.print(_campaigns(found.campaigns[-CAMPAIGNS_SHOWN:]))
    console.print()
    for role, end in found.expiries.items():
        soon = end - now < SOON_S
        console.print(f"{role} is valid until {when(int(end))}", style="bold red" if soon else "")
    if not found.expiries:
        console.print("nothing is published yet")


def _table(*headings: str) -> Table:
    from rich.table import Table

    return Table(*headings, box=None, pad_edge=False, header_style="bold")


def _devices(rows: list[dict[str, Any]]) -> Table:
    from agent.commands.output import plain

    table = _table("device", "groups", "hardware", "keys", "runs", "last assigned", "outcome", "at")
    for row in rows:
        table.add_row(
            plain(row["device"]),
            plain(", ".join(row["groups"])),
            plain(row["hw_class"]),
            row["key_level"],
            plain("revoked" if row["revoked"] else row["committed"] or "-"),
            plain(row["assigned"] or "-"),
            row["outcome"] or "-",
            when(row["since"]),
            style="dim" if row["revoked"] else "",
        )
    if not rows:
        table.add_row("no devices are enrolled")
    return table


def _bundles(rows: list[dict[str, Any]]) -> Table:
    from agent.commands.output import plain

    table = _table("bundle", "release", "state", "packed", "digest")
    for row in rows:
        state = "published" if row["published"] else "released" if row["released"] else "packed"
        table.add_row(
            plain(f"{row['family']} {row['version']}"),
            str(row["release_counter"]),
            state,
            when(row["packed"]),
            row["digest"][:16],
        )
    if not rows:
        table.add_row("no bundles are packed")
    return table


def _campaigns(rows: list[dict[str, Any]]) -> Table:
    from agent.commands.output import plain

    table = _table("campaign", "bundle", "state", "outcomes", "by", "begun", "reason")
    for row in rows:
        outcomes = ", ".join(f"{count} {name}" for name, count in row["outcomes"].items())
        table.add_row(
            plain(row["campaign"]),
            plain(row["bundle"]),
            row["state"],
            outcomes,
            plain(row["operator"]),
            when(row["created"]),
            plain(row["reason"]),
        )
    return table
