"""`vigia fleet audit`: who did what, and whether the log of it is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.options import FolderArgument, JsonOption, opened, tell, when

app = typer.Typer(no_args_is_help=True, help="Read the log of what operators did, and prove it.")


@app.command("show")
def show(
    folder: FolderArgument,
    last: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the last N entries.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show who did what, and the head of the log.

    Note the head somewhere else from time to time, on paper or on another machine: with it,
    [bold]vigia fleet audit verify --noted[/bold] finds even a log that was written anew by somebody
    who had all keys.

    Example: [bold]vigia fleet audit show fleet --last 20[/bold]
    """
    import json
    from collections import deque

    from rich.table import Table

    from agent.commands.output import output, plain

    with opened(folder) as fleet:
        entries = list(deque(fleet.audit.entries(), last))
        head = fleet.audit.head()
    if json_output:
        shown = [entry.model_dump(mode="json") for entry in entries]
        typer.echo(json.dumps({"head": head.text(), "entries": shown}))
        return
    table = Table("no.", "time", "operator", "action", "details", box=None, pad_edge=False)
    for entry in entries:
        details = ", ".join(f"{key}: {_short(value)}" for key, value in entry.details.items())
        table.add_row(
            str(entry.number),
            when(entry.at),
            plain(entry.operator),
            plain(entry.action),
            plain(details),
        )
    console = output()
    console.print(table)
    console.print(plain(f"head: {head.text()}"))


@app.command("verify")
def verify(
    folder: FolderArgument,
    noted: Annotated[
        str | None,
        typer.Option(metavar="COUNT:HASH", help="A head that was noted before; see `audit show`."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Prove that the log is whole: no entry altered, removed, moved, added or cut off.

    Needs no passphrase. Exit code 0 if it is whole, 2 if not; the message says where it is seen.

    Example: [bold]vigia fleet audit verify fleet[/bold]
    """
    expected = None if noted is None else _noted(noted)
    with opened(folder) as fleet:
        keys, audit_key = fleet.audit_keys()
        head = fleet.audit.verify(keys, audit_key, expected)
    tell(
        json_output,
        {"ok": True, "count": head.count, "head": head.text()},
        f"the audit log is whole: {head.count} entries",
        f"head: {head.text()}",
    )


def _noted(text: str) -> tuple[int, str]:
    count, _, digest = text.partition(":")
    if not (count.isascii() and count.isdigit() and digest):
        raise typer.BadParameter("give COUNT:HASH, as `vigia fleet audit show` prints it")
    return int(count), digest


_LONGEST = 60
"""Characters of a value that are shown; JSON has all."""


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
