"""`vigia model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption

app = typer.Typer(no_args_is_help=True, help="Look at models.")


@app.callback()
def models() -> None:
    """Look at models."""


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(help="ONNX file.")],
    json_output: JsonOption = False,
) -> None:
    """Say what a model file is: task, layout, classes, input, outputs, precision.

    What stands neither in the file's metadata nor in the configuration is inferred from shapes, and
    said to be inferred. A file that can be read in two ways is refused with the choices.

    Example: [bold]vigia model inspect yolov8n.onnx[/bold]
    """
    import json

    from agent.modelreport import as_dict, as_text
    from engines.describe import describe

    info = describe(file)
    typer.echo(json.dumps(as_dict(info)) if json_output else as_text(info))
