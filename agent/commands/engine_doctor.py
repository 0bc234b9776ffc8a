"""`vigia engine doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from agent.doctor import Diagnosis


def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="ONNX file; leave it out with --config.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="What the cameras see: a folder of pictures, a video, or one picture."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The model as it was right: another ONNX file, or recorded arrays (.npz) by the "
            "names of input and outputs, and maybe `picture` (uint8 BGR)."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Pictures looked at, at the most.", min=1)] = 24,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Take the settings of --slot from this file."),
    ] = None,
    slot: Annotated[str, typer.Option(help="Model slot of --config.")] = "main",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where built engines are kept; default: the user's cache.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Say why a model is less accurate or slower than it was, the most likely cause first.

    Looks at the pictures, at scale and order of what the network sees, at the weights, at the
    engine beside the file itself and beside a reference, at thresholds, and at the machine: cores,
    clocks, power mode, heat, load, memory. It changes nothing.

    Exit code 0 if nothing failed, 1 if something did, 2 if it could not look.

    Example: [bold]vigia engine doctor yolov8n.onnx --pictures pictures/[/bold]
    """
    import json

    from agent.check import as_dicts, exit_code
    from agent.commands.engine_build import slot_request
    from agent.commands.output import findings_table, output
    from agent.doctor import TOPICS, examine
    from agent.enginepictures import read_pictures

    wanted = slot_request(model, config, slot, cache_dir, {})
    with output(stderr=True).status("reading pictures") as status:
        found = [] if pictures is None else read_pictures(pictures, images)
        diagnosis = examine(wanted, found, reference, tell=status.update)
    if json_output:
        typer.echo(
            json.dumps(
                {
                    "verdict": {topic: diagnosis.verdict(topic) for topic in TOPICS},
                    "findings": as_dicts(diagnosis.findings),
                    **diagnosis.facts,
                }
            )
        )
    else:
        output().print(findings_table(diagnosis.findings))
        _say(diagnosis)
    raise typer.Exit(exit_code(diagnosis.findings))


def _say(diagnosis: Diagnosis) -> None:
    """The verdicts, below the table where they are seen."""
    from rich.text import Text

    from agent.commands.output import output, plain
    from agent.doctor import TOPICS

    console = output()
    console.print()
    for topic in TOPICS:
        verdict = plain(diagnosis.verdict(topic))
        console.print(Text.assemble(("» ", "bold"), (verdict.plain, "bold")))
