"""Options and beginnings that the commands of `vigia fleet` share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fleet.fleetfolder import Fleet

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The fleet folder, as `vigia fleet init` made it.")
]
ActorOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        envvar="VIGIA_FLEET_OPERATOR",
        help="The operator who acts; default: the only one there is.",
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="One passphrase for all keys, in a file that only you can read; default: "
        "VIGIA_FLEET_PASSPHRASE, else you are asked.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")]


@contextlib.contextmanager
def opened(folder: Path, passphrase_file: Path | None = None) -> Iterator[Fleet]:
    """Open a fleet folder for one command."""
    from fleet.errors import FleetError
    from fleet.passphrases import Passphrases

    try:
        from fleet.fleetfolder import Fleet
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise FleetError(
            "the fleet's commands need SQLAlchemy: pip install 'vigia-agent[fleet]'"
        ) from error
    with Fleet(folder, Passphrases(passphrase_file)) as fleet:
        yield fleet


def tell(json_output: bool, value: dict[str, Any], *lines: str) -> None:
    """Print the result: JSON for programs, or lines for people."""
    import json

    from agent.commands.output import output, plain

    if json_output:
        typer.echo(json.dumps(value))
        return
    console = output()
    for line in lines:
        console.print(plain(line))


def when(seconds: int | None) -> str:
    """A time for people, in their own zone; "-" for none."""
    import time

    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
