"""What commands print for people; colours only on a terminal, and never with NO_COLOR.

Texts from files, cameras and brokers are printed as they are: no markup in them is obeyed.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.check import Finding
    from agent.watch import Board

PIPE_COLUMNS = 200
"""Width where standard output is no terminal: lines of a log or a pipe are not folded."""

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def plain(text: str) -> Text:
    """A text from outside, without the control characters that terminals obey."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def output(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough where there is none."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else max(PIPE_COLUMNS, shutil.get_terminal_size().columns)
    return Console(stderr=stderr, width=width, highlight=False)


def findings_table(findings: Iterable[Finding]) -> Table:
    """One line for each finding, and one below it for what to do."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.status, STYLES[finding.status]), plain(finding.name), plain(finding.what)
        )
        if finding.fix:
            table.add_row("", "", plain(f"-> {finding.fix}"))
    return table


def board_table(board: Board, now_s: float) -> Table:
    """The cameras of a broker, one line each."""
    columns = ("device", "camera", "state", "fps", "age ms", "missed", "found")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for (device, camera), row in sorted(board.rows.items()):
        table.add_row(
            plain(device),
            plain(camera),
            plain(row.state or "-"),
            f"{row.fps(now_s):.1f}",
            f"{row.age_ms:.0f}",
            str(row.missed),
            plain(row.labels() or "-"),
        )
    for device, state in sorted(board.devices.items()):
        table.add_row(plain(device), "", plain(state), "", "", "", "", style="dim")
    if not board.rows:
        table.add_row(Text("waiting for messages ..."), style="dim")
    return table
