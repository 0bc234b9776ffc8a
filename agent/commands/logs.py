"""`vigia logs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINES = 100_000
PRIORITIES = {"debug": "debug", "info": "info", "warning": "warning", "error": "err"}


def logs(
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="The last so many.", min=1, max=MAX_LINES)
    ] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    since: Annotated[str | None, typer.Option(help='As journalctl knows it: "1 hour ago".')] = None,
    level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "debug",
    file: Annotated[
        Path | None, typer.Option(help="A log that was written to a file, not the journal.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show the log of the service: from the journal, or a file.

    Example: [bold]vigia logs -n 50 --level warning[/bold]
    """
    from agent.errors import ConfigError

    if level not in PRIORITIES:
        raise ConfigError(f"--level: {level!r} is none; give one of {', '.join(PRIORITIES)}")
    if file is not None and (follow or since):
        raise ConfigError("--follow and --since read the journal; leave out --file, or use tail -f")
    found = _file(file, lines, level) if file else _journal(lines, follow, since, level)
    _print(found, json_output)


def _print(lines: Iterable[str], json_output: bool) -> None:
    from agent.loglines import readable

    for line in lines:
        shown = line if json_output else readable(line)
        # What cameras and brokers said stands in lines: no terminal shall obey it.
        typer.echo("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}"
                           for c in shown))  # fmt: skip


def _file(path: Path, lines: int, level: str) -> Iterator[str]:
    from collections import deque

    from agent.errors import ConfigError
    from agent.loglines import wanted

    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            yield from deque((s for line in log if wanted(s := line.rstrip("\n"), level)), lines)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give a file that can be read") from error


def _journal(lines: int, follow: bool, since: str | None, level: str) -> Iterator[str]:
    import contextlib
    import subprocess

    from agent.errors import ServiceError
    from agent.servicelayout import UNIT

    command = ["journalctl", "-u", UNIT, "-n", str(lines), "-o", "cat", "--no-pager", "--quiet"]
    command += ["-p", PRIORITIES[level], *(["-f"] if follow else [])]
    command += [f"--since={since}"] if since else []
    try:
        process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
            command, stdout=subprocess.PIPE, text=True, errors="replace"
        )
    except OSError as error:
        raise ServiceError("journalctl is missing here; use --file with the log's file") from error
    try:
        assert process.stdout is not None
        yield from (line.rstrip("\n") for line in process.stdout)
        if process.wait() != 0:
            raise ServiceError("journalctl failed; are you in the group systemd-journal, or root?")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait()
