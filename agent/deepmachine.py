"""The machine that the deep check looks at: its files and its programs; tests give another."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE_BYTES = 262_144
"""Of a file that is read: version files and tables are far smaller."""

MAX_TOLD = 65_536
"""Characters of a program's words that are kept."""

RUN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A program that ended.

    Attributes:
        code: its exit status; negative: the signal that killed it.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str = ""


class Machine:
    """This machine, or the files of another.

    Args:
        root: "/", or a folder with the files of another machine.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, name: str) -> str:
        """A file's text by its path below the root; empty if there is none or it is unreadable."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def run(self, command: Sequence[str], timeout_s: float = RUN_TIMEOUT_S) -> Ran | None:
        """Run a program; None if it is missing or took too long."""
        try:
            done = subprocess.run(  # noqa: S603 - fixed commands, no shell
                command, capture_output=True, text=True, errors="replace", check=False,
                timeout=timeout_s, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Ran(done.returncode, done.stdout[-MAX_TOLD:], done.stderr[-MAX_TOLD:])
