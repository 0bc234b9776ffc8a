"""`vigia fleet withdraw`."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.commands.operator import sign_lines
from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)


def withdraw(
    folder: FolderArgument,
    family: Annotated[str, typer.Argument(help="Of the bundle.")],
    version: Annotated[str, typer.Argument(help="Of the bundle.")],
    why: Annotated[
        str, typer.Option("--why", metavar="TEXT", help="For the audit log, e.g. misses people.")
    ] = "",
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Un-release a bad bundle, so that no device begins with it any more, whoever assigns it.

    It counts once the release keys have signed it and it is published. Devices that run the bundle
    go on with it until they are given another, or told to go back: see [bold]vigia fleet
    rollback[/bold]. To save room at the broker only, see [bold]vigia fleet publish
    --withdraw[/bold].

    Example: [bold]vigia fleet withdraw fleet yolo 2 --why "misses people"[/bold]
    """
    from fleet.controlling import find_bundle
    from fleet.releasing import withdraw as stage
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.RELEASE, actor)
        done = stage(fleet, who, find_bundle(fleet, family, version), why)
    tell(
        json_output,
        {
            "requests": [str(path) for path in done.requests],
            "campaigns": list(done.campaigns),
        },
        f"{family} {version} is to be released no longer",
        *(
            f"campaign {name} still assigns it: vigia fleet stop {folder} {name}"
            for name in done.campaigns
        ),
        *sign_lines(folder, done.requests),
    )
