"""Progress bars on standard error; nothing where that is no terminal."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from agent.commands.output import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def byte_bar(
    what: str,
) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
    """A bar of bytes: give it those that are done, and all."""
    return _bar(what, DownloadColumn(), TransferSpeedColumn())


def block_bar(
    what: str,
) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
    """A bar of blocks: give it those that are done, and all."""
    return _bar(what, MofNCompleteColumn(), TimeRemainingColumn())


@contextlib.contextmanager
def _bar(what: str, *columns: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    console = output(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), *columns)
    with Progress(*shown, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def step_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar of steps: give it what is done, how much of it, and all."""
    console = output(stderr=True)
    if not console.is_terminal:
        yield lambda _step, _done, _total: None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*shown, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda step, done, total: bar.update(
            task, description=step, completed=done, total=total
        )
