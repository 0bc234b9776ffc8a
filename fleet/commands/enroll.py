"""`vigia fleet enroll`."""

from __future__ import annotations

from pathlib import Path
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


def enroll(
    folder: FolderArgument,
    identity: Annotated[
        Path, typer.Argument(metavar="IDENTITY.json", help="As `vigia enroll` wrote it there.")
    ],
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="G", help="Put it into this group, made if new; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The answer; default: beside IDENTITY."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="It is enrolled already: give it a new certificate."),
    ] = False,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Take a device into the fleet, and write the answer that it installs.

    Compare the fingerprint with the one that the device itself shows, by a way that nobody else
    can alter: at its screen, or by telephone. It is all that says whose keys these are. The answer
    is no secret, but the device will trust what it says: carry it by a way that you trust.

    Example: [bold]vigia fleet enroll fleet line-7.identity.json --group hall-2[/bold]
    """
    from agent.bundle.identity import fingerprint
    from agent.commands.output import output, plain
    from fleet.enrolling import enroll as admit
    from fleet.enrolling import read_identity_file
    from fleet.metadatafolder import replace
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        shown = read_identity_file(identity)
        place = out or identity.with_name(f"{shown.device}.enrolment.json")
        console = output(stderr=True)
        console.print(
            plain(f"device {shown.device}, {shown.hw_class}, keys {shown.kem} {shown.key_level}")
        )
        console.print(plain(f"fingerprint {fingerprint(shown)}"))
        if not yes:
            typer.confirm("Does the device show the same fingerprint?", abort=True, err=True)
        who = fleet.act(Permission.ENROLL, actor)
        done = admit(fleet, who, shown, group or [], again=again)
    replace(place, done.answer.encode())
    new = f"; new groups: {', '.join(done.new_groups)}" if done.new_groups else ""
    tell(
        json_output,
        {
            "device": shown.device,
            "fingerprint": fingerprint(shown),
            "groups": sorted(group or []),
            "out": str(place),
        },
        f"device {shown.device} is enrolled{new}",
        f"next, on the device: vigia enroll install {place.name}",
        *(["then have the broker read its lists again (SIGHUP)"] if again else []),
    )
