"""`vigia detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption


def detect(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    sources: Annotated[
        list[str], typer.Argument(help="Pictures, folders, globs, videos, URLs, device numbers.")
    ],
    conf: Annotated[float, typer.Option(help="Least score of an object.", min=0, max=1)] = 0.25,
    iou: Annotated[float, typer.Option(help="NMS overlap.", min=0, max=1)] = 0.5,
    limit: Annotated[
        int | None, typer.Option(help="Stop after this many frames of a source.", min=1)
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Annotated result: picture, video (.mp4) or folder."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Run a model on pictures, videos or cameras and print what it finds.

    With [bold]--json[/bold], one JSON object a frame on stdout, in the schema that the agent
    publishes over MQTT.

    Example: [bold]vigia detect conveyor-n.onnx sample.mp4 --limit 100 --save out.mp4[/bold]
    """
    import sys

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    from agent.config import ModelConfig
    from agent.detect import Saver, plan
    from agent.detect import detect as run
    from agent.models import load_model
    from agent.resulttext import JsonLines, line

    cameras = [(source, plan(source)) for source in sources]
    saver = Saver(save) if save is not None else None
    config = ModelConfig(path=model, confidence=conf, iou=iou)
    loaded = load_model("main", config, live=False)
    console = Console(stderr=True)
    encode = JsonLines() if json_output else line
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            for number, (source, camera) in enumerate(cameras):
                name = f"source{number}"
                bar = progress.add_task(Path(source).name or source, total=limit)

                def show(result: object, bar: object = bar) -> None:
                    print(encode(result), file=sys.stdout, flush=json_output)  # type: ignore[arg-type]  # noqa: T201
                    progress.advance(bar)  # type: ignore[arg-type]

                run(loaded, camera, name, show, saver, limit)
    finally:
        if saver is not None:
            saver.close()
        loaded.engine.close()
    if save is not None:
        console.print(f"saved {save}")
