"""`vigia fleet passphrase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import JsonOption, PassphraseOption, tell


def passphrase(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Key files that have one passphrase in common."),
    ],
    passphrase_file: PassphraseOption = None,
    new_passphrase_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The new passphrase; default: you are asked."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Change the passphrase of a key; the key itself stays the same.

    All online keys must have one passphrase: give them together. Who has a copy of an old file and
    knew its passphrase still has the key: then see [bold]vigia fleet rotate-keys[/bold]. Broken
    off, it can be given again.

    Example: [bold]vigia fleet passphrase fleet/keys/online/*.key[/bold]
    """
    from fleet.passphrases import Passphrases
    from fleet.vault import change_passphrase

    called = ", ".join(path.stem for path in files)
    old = Passphrases(passphrase_file).get(f"the keys {called}")
    # The environment has the old one.
    new = Passphrases(new_passphrase_file, environ={}).new(f"the keys {called}")
    changed = change_passphrase(files, old, new)
    tell(
        json_output,
        {"changed": [str(path) for path in changed]},
        *(f"changed: {path}" for path in changed),
        *(["all of them have this passphrase already"] if not changed else []),
    )
