"""Shows the progress of building on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from agent.commands.output import output, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engines import backend


@contextlib.contextmanager
def progress() -> Iterator[Callable[[backend.Progress], None]]:
    """Give a function that takes progress and shows it."""
    console = output(stderr=True)
    if not console.is_terminal:
        said: list[str] = []

        def say(told: backend.Progress) -> None:
            # A log has no use for every hundredth of a step.
            if said[-1:] != [told.step]:
                said.append(told.step)
                console.print(plain(told.step))

        yield say
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(told: backend.Progress) -> None:
            bar.update(
                task,
                description=plain(told.step).plain,
                completed=told.done,
                total=told.total or None,
            )

        yield show
