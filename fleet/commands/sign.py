"""`vigia fleet sign`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    JsonOption,
    PassphraseOption,
    YesOption,
    opened,
    tell,
)


def sign(
    place: Annotated[
        Path,
        typer.Argument(metavar="DIR|REQUEST.json", help="Fleet folder, or a signing request."),
    ],
    family: Annotated[str | None, typer.Argument(help="Of the bundle to release.")] = None,
    version: Annotated[str | None, typer.Argument(help="Of the bundle to release.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="An offline key of DIR, or the file of a key; may be repeated.",
        ),
    ] = None,
    attach: Annotated[
        list[Path] | None,
        typer.Option(help="Take in a signature that was made elsewhere; may be repeated."),
    ] = None,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Sign what is to be released, here or on a machine that has nothing but a request and a key.

    With a folder: ask for the release of a bundle (or sign whatever is pending), sign it with keys
    that lie there, and complete it once enough have signed. With a request: write the signature
    beside it, to be taken back and given to [bold]--attach[/bold].

    Example: [bold]vigia fleet sign fleet yolo 2 --key release-1 --key release-2[/bold]
    Elsewhere: [bold]vigia fleet sign targets.json --key /media/stick/release-2.key[/bold]
    """
    if place.is_dir():
        _in_folder(
            place,
            family,
            version,
            key or [],
            attach or [],
            actor,
            passphrase_file,
            yes,
            json_output,
        )
    else:
        _of_request(place, key or [], passphrase_file, yes, json_output)


def _in_folder(
    place: Path,
    family: str | None,
    version: str | None,
    keys: list[str],
    signatures: list[Path],
    actor: str | None,
    passphrase_file: Path | None,
    yes: bool,
    json_output: bool,
) -> None:
    from fleet.controlling import find_bundle
    from fleet.releasing import complete, sign_pending, stage
    from fleet.roles import Permission

    if (family is None) is not (version is None):
        raise typer.BadParameter("FAMILY and VERSION belong together: give both or neither")
    with opened(place, passphrase_file) as fleet:
        who = fleet.act(Permission.RELEASE, actor)
        if family is not None and version is not None:
            stage(fleet, find_bundle(fleet, family, version))
        for path in signatures:
            fleet.repository.attach(path)
        sign_pending(fleet, keys, lambda review: confirm(review, yes))
        done = complete(fleet)
        with fleet.database.session() as session:
            details = {
                "bundle": f"{family} {version}" if family else "",
                "keys": keys,
                "attached": [path.name for path in signatures],
                "complete": done.complete,
            }
            fleet.audit.record(session, who, "release.sign", details)
    lines = (
        ["complete: it can be published"]
        if done.complete
        else [*done.missing, *(f"to be signed: {path}" for path in done.requests)]
    )
    tell(
        json_output,
        {
            "complete": done.complete,
            "missing": list(done.missing),
            "requests": [str(path) for path in done.requests],
        },
        *lines,
    )


def _of_request(
    place: Path, keys: list[str], passphrase_file: Path | None, yes: bool, json_output: bool
) -> None:
    from fleet.passphrases import Passphrases
    from fleet.releasing import sign_file

    if not keys:
        raise typer.BadParameter("give --key FILE")
    passphrases = Passphrases(passphrase_file)
    made = [
        sign_file(place, Path(key), passphrases, lambda review: confirm(review, yes))
        for key in keys
    ]
    tell(json_output, {"signatures": [str(p) for p in made]}, *(f"signature: {p}" for p in made))


def confirm(review: Sequence[str], yes: bool) -> None:
    """Show what is signed, and have it agreed to."""
    from agent.commands.output import output, plain

    console = output(stderr=True)
    for line in review:
        console.print(plain(line))
    if not yes:
        typer.confirm("Sign this?", abort=True, err=True)
