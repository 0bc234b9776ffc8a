"""Where passphrases come from: a file, the environment, or the person at the terminal.

Never an argument of a command: those are seen by everybody on the machine and kept in histories.
A file or the environment gives one passphrase for all keys, which is for rehearsals and machines
that sign by themselves; a person is asked for each key's own.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING

from agent.errors import KeyStoreError
from engines.durable import read_bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

VARIABLE = "VIGIA_FLEET_PASSPHRASE"
MAX_PASSPHRASE_BYTES = 1024
MIN_NEW_CHARACTERS = 8

READABLE_BY_OTHERS = 0o077


class Passphrases:
    """Gives the passphrase of each key when it is needed, and remembers it for this command.

    Args:
        file: holds one for all keys; its last newline does not count.
        environ: the environment.
        ask: asks the person; None: as a terminal does, if there is one.
    """

    def __init__(
        self,
        file: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        ask: Callable[[str], str] | None = None,
    ) -> None:
        self._file = file
        self._given = environ.get(VARIABLE)
        self._ask = ask or (getpass.getpass if sys.stdin.isatty() else None)
        self._known: dict[str, str] = {}

    def get(self, key: str) -> str:
        """The passphrase of `key`, as messages call it, e.g. "the online keys".

        Raises:
            KeyStoreError: there is none, and nobody to ask.
        """
        return self._common() or self._remembered(key, lambda: self._prompt(f"Passphrase of {key}"))

    def new(self, key: str) -> str:
        """A passphrase for keys that are being made; a person says it twice.

        Raises:
            KeyStoreError: as `get`, or it is too short, or the two are not the same.
        """
        common = self._common()
        if common:
            return _strong(common, key)
        return self._remembered(key, lambda: self._chosen(key))

    def _remembered(self, key: str, make: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _chosen(self, key: str) -> str:
        first = _strong(self._prompt(f"New passphrase for {key}"), key)
        if self._prompt("Once more") != first:
            raise KeyStoreError("the two passphrases are not the same; begin again")
        return first

    def _prompt(self, text: str) -> str:
        if self._ask is None:
            raise KeyStoreError(
                f"{text[0].lower()}{text[1:]}: there is no terminal to ask at; "
                f"use --passphrase-file or {VARIABLE}"
            )
        answer = self._ask(f"{text}: ")
        if not answer:
            raise KeyStoreError("an empty passphrase opens nothing; begin again")
        return answer

    def _common(self) -> str | None:
        return self._given if self._file is None else _read(self._file)


def _read(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_mode & READABLE_BY_OTHERS:
            raise KeyStoreError(
                f"--passphrase-file {path} can be read by others; say `chmod 600 {path}`"
            )
        text = (read_bounded(path, MAX_PASSPHRASE_BYTES) or b"").decode()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyStoreError(f"--passphrase-file {path} cannot be read: {error}") from error
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise KeyStoreError(
            f"--passphrase-file {path} is empty, or longer than {MAX_PASSPHRASE_BYTES} bytes"
        )
    return text


def _strong(passphrase: str, key: str) -> str:
    if len(passphrase) < MIN_NEW_CHARACTERS:
        raise KeyStoreError(
            f"the passphrase for {key} is too short; take at least {MIN_NEW_CHARACTERS} "
            "characters, better five words"
        )
    return passphrase
