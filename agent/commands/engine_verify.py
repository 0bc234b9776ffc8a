"""`vigia engine verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from agent.verify import Outcome

DIFFERENT = 1
"""Exit code where the two do not answer the same."""


def verify(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="A", help="What is believed: FILE.onnx, FILE:BACKEND:PRECISION, slot:NAME."
        ),
    ],
    candidate: Annotated[
        str,
        typer.Argument(metavar="B", help="What is judged: the same, or a plan's key."),
    ],
    pictures: Annotated[
        Path, typer.Option(help="Folder of pictures, or a video, that shows what is to be found.")
    ],
    truth: Annotated[
        Path | None, typer.Option(help="Ground truth of these pictures (JSON), for mAP.")
    ] = None,
    images: Annotated[
        int, typer.Option(help="Pictures an int8 engine is calibrated with at the most.", min=8)
    ] = 256,
    keep_float: Annotated[
        str, typer.Option(help="What of an int8 engine stays in floating point: head or none.")
    ] = "head",
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration of slots, and limits of the gate."),
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where plans are; default: as configured.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare two of model file, built engine and recipe: do they answer the same?

    The second is judged by the gate that every engine must pass, on pictures that no engine was
    calibrated with. If it falls, the known faults are tried: swapped channels, scaling forgotten or
    done twice, another resize, a quantised output, another model. Exit code 0 if they answer the
    same, 1 if not, 2 for a mistake in what was given.

    Example: [bold]vigia engine verify a.onnx a.onnx:onnxruntime:int8 --pictures frames/[/bold]
    """
    import json

    from agent.commands.progress import progress
    from agent.configfile import load
    from agent.errors import ConfigError
    from agent.verify import verify as run
    from agent.verifyside import Request
    from agent.verifyspec import parse

    if keep_float not in ("head", "none"):
        raise ConfigError(f"--keep-float {keep_float}: choose head or none")
    request = Request(
        reference=parse(reference),
        candidate=parse(candidate),
        pictures=pictures,
        truth=truth,
        images=images,
        keep_float=keep_float,
        config=None if config is None else load(config),
        cache_dir=cache_dir,
    )
    with progress() as tell:
        outcome = run(request, tell)
    if json_output:
        typer.echo(json.dumps(outcome.as_json()))
    else:
        _show(outcome)
    if not outcome.verdict.passed:
        raise typer.Exit(DIFFERENT)


def _show(outcome: Outcome) -> None:
    from rich.table import Table
    from rich.text import Text

    from agent.commands.output import output, plain
    from agent.verifytext import rows

    console = output()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(("", "measured", "limit")):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for row in rows(outcome):
        table.add_row(*row)
    for name, side in (("A", outcome.reference), ("B", outcome.candidate)):
        console.print(plain(f"{name}  {side['name']}: {side['precision']} on {side['backend']}"))
    console.print(table)
    for note in outcome.verdict.figures.get("notes", ()):  # type: ignore[attr-defined]
        console.print(plain(f"note: {note}"))
    if outcome.verdict.passed:
        console.print(Text("the same: B may serve in A's place", "green"))
        return
    for reason in outcome.verdict.reasons:
        console.print(Text.assemble(("different: ", "bold red"), plain(reason)))
    for cause in outcome.looks_like:
        console.print(Text.assemble(("looks like: ", "bold yellow"), plain(cause)))
