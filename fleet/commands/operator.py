"""`vigia fleet operator`: who works with the fleet."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
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
    when,
)

app = typer.Typer(no_args_is_help=True, help="Operators: who may do what, and with which key.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the operator.")]


class RoleChoice(str, Enum):
    """As `fleet.roles.Role`, which is imported when a command runs."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASER = "releaser"
    ADMIN = "admin"


@app.command("add")
def add(
    folder: FolderArgument,
    name: NameArgument,
    role: Annotated[RoleChoice, typer.Option(help="Each may do what the ones before it may.")],
    public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Key that was made with make-key; default: one is made here."
        ),
    ] = None,
    holds: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Offline key that they keep; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where a viewer's certificate goes."),
    ] = None,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Take on an operator.

    [bold]viewer[/bold] reads everything at the broker, with a certificate, and changes nothing;
    [bold]operator[/bold] assigns models, groups devices, revokes them, approves;
    [bold]releaser[/bold] also packs and releases bundles, with release keys that they keep;
    [bold]admin[/bold] also enrols devices and changes operators and keys, with root keys.
    Devices know a new operator's key as soon as the release keys have signed it.

    Example: [bold]vigia fleet operator add fleet bob --role operator[/bold]
    """
    from fleet.publickey import read_public_key
    from fleet.roles import Permission, Role
    from fleet.staffing import take_on

    given = None if public_key is None else read_public_key(public_key)
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ADMINISTER, actor)
        done = take_on(fleet, who, name, Role(role.value), given=given, holds=holds or [])
        files = []
        if done.viewer is not None:
            files = _hand_over(
                out or Path(f"viewer-{name}"),
                {
                    "viewer.pem": done.viewer.certificate.pem.encode(),
                    "viewer.key": done.viewer.key,
                    "ca.pem": fleet.authority.certificate.encode(),
                },
            )
    lines = [f"{name} is entered as {role.value}"]
    if files:
        lines += [
            f"hand over: {', '.join(map(str, files))}",
            "then have the broker read its lists again (SIGHUP)",
        ]
    tell(
        json_output,
        {
            "operator": name,
            "role": role.value,
            "key_id": done.operator.key_id,
            "files": [str(file) for file in files],
            "requests": [str(path) for path in done.requests],
        },
        *lines,
        *sign_lines(folder, done.requests),
    )


@app.command("remove")
def remove(
    folder: FolderArgument,
    name: NameArgument,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Let an operator go: here at once, at devices as soon as the release keys have signed it.

    Offline keys that they kept have to be replaced: see [bold]vigia fleet rotate-keys[/bold].

    Example: [bold]vigia fleet operator remove fleet bob[/bold]
    """
    import json

    from fleet.roles import Permission
    from fleet.staffing import let_go

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ADMINISTER, actor)
        if not yes:
            typer.confirm(f"Remove {name}? The name cannot come back.", abort=True, err=True)
        done = let_go(fleet, who, name)
    held = json.loads(done.operator.holds)
    lines = [f"{name} is removed"]
    if done.operator.serial is not None:
        lines.append("now have the broker read its lists again (SIGHUP)")
    lines += [
        f"{name} kept {key}: replace it with vigia fleet rotate-keys {folder} "
        f"{key.partition('-')[0]} --replace {key}"
        for key in held
    ]
    tell(
        json_output,
        {
            "removed": name,
            "replace": held,
            "requests": [str(path) for path in done.requests],
        },
        *lines,
        *sign_lines(folder, done.requests),
    )


@app.command("list")
def list_operators(folder: FolderArgument, json_output: JsonOption = False) -> None:
    """Show all operators, their roles and keys.

    Example: [bold]vigia fleet operator list fleet[/bold]
    """
    import json

    from sqlalchemy import select

    from fleet.database import Operator

    with opened(folder) as fleet, fleet.database.reading() as session:
        rows = list(session.scalars(select(Operator).order_by(Operator.name)))
    shown = [
        {
            "name": row.name,
            "role": row.role,
            "key_id": row.key_id,
            "holds": json.loads(row.holds),
            "created_at": row.created_at,
            "removed_at": row.removed_at,
        }
        for row in rows
    ]
    lines = [
        f"{row.name}: {row.role}, "
        + (f"key {row.key_id[:16]}" if row.key_id else "certificate only")
        + (f", keeps {', '.join(json.loads(row.holds))}" if row.holds != "[]" else "")
        + (f", removed {when(row.removed_at)}" if row.removed_at else "")
        for row in rows
    ]
    tell(json_output, {"operators": shown}, *lines)


@app.command("approvals")
def approvals(
    folder: FolderArgument,
    number: Annotated[
        int, typer.Argument(metavar="N", min=0, max=16, help="Operators that must agree.")
    ],
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have devices demand that N operators approve each roll-out; 0: whoever assigns suffices.

    Example: [bold]vigia fleet operator approvals fleet 2[/bold]
    """
    from fleet.roles import Permission
    from fleet.staffing import ask_approvals

    with opened(folder, passphrase_file) as fleet:
        requests = ask_approvals(fleet, fleet.act(Permission.ADMINISTER, actor), number)
    tell(
        json_output,
        {"approvals": number, "requests": [str(path) for path in requests]},
        f"devices are to ask for {number} approvals",
        *sign_lines(folder, requests),
    )


def sign_lines(folder: Path, requests: Iterable[Path]) -> list[str]:
    """What is to be done with signing requests."""
    paths = [str(path) for path in requests]
    if not paths:
        return []
    return [
        f"to be signed before devices know of it: {', '.join(paths)}",
        f"  vigia fleet sign {folder} --key NAME ..., then vigia fleet publish {folder}",
    ]


def _hand_over(folder: Path, files: dict[str, bytes]) -> list[Path]:
    from fleet.errors import FleetError
    from fleet.metadatafolder import replace

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(f"{folder} cannot be made: {error.strerror}") from error
    for name, content in files.items():
        replace(folder / name, content)
    return [folder / name for name in files]
