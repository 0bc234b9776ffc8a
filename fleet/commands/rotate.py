"""`vigia fleet rotate-keys`, `renew` and `make-key`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
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


class What(str, Enum):
    """What can be replaced."""

    DIRECTOR = "director"
    ONLINE = "online"
    RELEASE = "release"
    ROOT = "root"
    SERVER = "server"
    CONTROLLER = "controller"


def rotate_keys(
    folder: FolderArgument,
    what: Annotated[What, typer.Argument(help="Which key.")],
    replace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The offline key to replace, e.g. release-1."),
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Its successor, made with make-key; default: one is made here."
        ),
    ] = None,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Replace a key: every year, when its holder leaves, or at once when it may be stolen.

    [bold]director[/bold] assigns; [bold]online[/bold]: snapshot and timestamp, which say what is
    current; [bold]release[/bold] and [bold]root[/bold]: offline keys, one at a time, with
    --replace; [bold]server[/bold]: the broker's certificate (also writes its configuration anew,
    e.g. after the folder was moved); [bold]controller[/bold]: the certificate of these commands.
    All but the last two count when offline keys have signed and it is published. Neither audit key
    nor certificate authority can be replaced: those need a new fleet.

    Example: [bold]vigia fleet rotate-keys fleet release --replace release-1[/bold]
    """
    from fleet.publickey import read_public_key
    from fleet.roles import Permission
    from fleet.rotating import (
        Offline,
        replace_offline,
        rotate_controller,
        rotate_director,
        rotate_online,
        rotate_server,
    )

    offline = what in {What.RELEASE, What.ROOT}
    if offline is (replace is None) or (new_key is not None and not offline):
        raise typer.BadParameter("--replace belongs to release and root, and --new-key to it")
    given = None if new_key is None else read_public_key(new_key)
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ADMINISTER, actor)
        if offline and replace is not None:
            done = replace_offline(fleet, who, Offline(what.value), replace, given)
        else:
            change = {
                What.DIRECTOR: rotate_director,
                What.ONLINE: rotate_online,
                What.SERVER: rotate_server,
                What.CONTROLLER: rotate_controller,
            }[what]
            done = change(fleet, who)
    lists = what in {What.SERVER, What.CONTROLLER}
    tell(
        json_output,
        {"made": list(done.made), "requests": [str(path) for path in done.requests]},
        f"new: {', '.join(done.made)}",
        *(["now have the broker read its files again (SIGHUP)"] if lists else []),
        *sign_lines(folder, done.requests),
    )


def renew(
    folder: FolderArgument,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have root and release keys say for another year what they say now.

    Devices take no new update once either has ended; what they run goes on. When that is,
    [bold]vigia fleet status[/bold] shows.

    Example: [bold]vigia fleet renew fleet[/bold]
    """
    from fleet.roles import Permission
    from fleet.rotating import renew as stage

    with opened(folder, passphrase_file) as fleet:
        done = stage(fleet, fleet.act(Permission.ADMINISTER, actor))
    tell(
        json_output,
        {"requests": [str(path) for path in done.requests]},
        *sign_lines(folder, done.requests),
    )


def make_key(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the key.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the key, e.g. your own.")],
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a key on a machine of your own, and the file of its public half for the admin.

    The private half never has to leave this machine: sign requests with it here. An operator's
    own key also proves who acts, so commands at the controller need it there, in keys/operators.

    Example: [bold]vigia fleet make-key ~/keys bob[/bold]
    """
    from fleet.metadatafolder import replace as put
    from fleet.passphrases import Passphrases
    from fleet.publickey import PUBLIC_SUFFIX, public_key_text
    from fleet.vault import Vault

    vault = Vault(folder)
    public = vault.create_key(name, Passphrases(passphrase_file).new(f"the key {name}"))
    file = folder / f"{name}{PUBLIC_SUFFIX}"
    put(file, public_key_text(public))
    tell(
        json_output,
        {"key": str(vault.path(name)), "public": str(file), "key_id": public.keyid},
        f"private key, yours alone: {vault.path(name)}",
        f"public key, for the admin: {file} ({public.keyid[:16]})",
    )
