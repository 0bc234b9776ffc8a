"""`vigia model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption

app = typer.Typer(no_args_is_help=True, help="Look at models, and collect pictures for them.")


@app.callback()
def models() -> None:
    """Look at models, and collect pictures for them."""


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


@app.command("collect")
def collect(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="Configuration that names the cameras.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")],
    camera: Annotated[
        list[str] | None, typer.Option(help="Only this camera; may be given several times.")
    ] = None,
    count: Annotated[int, typer.Option(help="Pictures at the most.", min=1, max=100_000)] = 320,
    seconds: Annotated[
        float, typer.Option(help="Time over which they are spread.", min=0.1, max=31e6)
    ] = 3600.0,
    max_mb: Annotated[
        int, typer.Option(help="Size of the folder's pictures at the most.", min=1)
    ] = 1024,
    json_output: JsonOption = False,
) -> None:
    """Capture pictures to calibrate and judge int8 engines with, spread over time.

    They come through the agent's own capture, cameras in turn, as JPEG of quality 95. Pictures that
    show the same as the one before are skipped. A further run adds to the folder. Collect over a
    whole day if light changes: what an int8 engine never saw, it may not see. Pictures of cameras
    are personal data: folder and files are for their owner only.

    Example: [bold]vigia model collect -c agent.yaml --out pictures --seconds 86400[/bold]
    """
    import json

    from agent.collect import CollectRequest
    from agent.collect import collect as run
    from agent.commands.output import output, plain
    from agent.commands.progress import progress
    from agent.configfile import load
    from agent.errors import ConfigError
    from agent.modelsettings import BYTES_PER_MB
    from engines.backend import Progress

    cameras = {name: c for name, c in load(config).cameras.items() if c.enabled}
    unknown = [name for name in camera or [] if name not in cameras]
    if unknown:
        raise ConfigError(
            f"--camera {unknown[0]}: {config} has no enabled camera of this name; "
            f"there: {', '.join(sorted(cameras))}"
        )
    chosen = {name: c for name, c in cameras.items() if not camera or name in camera}
    request = CollectRequest(chosen, out, count, seconds, max_mb * BYTES_PER_MB)
    with progress() as tell:
        result = run(request, lambda done: tell(Progress("collecting", done, count)))
    if json_output:
        typer.echo(json.dumps({"out": str(out), **result.as_json()}))
        return
    console = output()
    for name in chosen:
        told = f"{name}: {result.kept[name]} kept, {result.alike[name]} skipped as nothing changed"
        console.print(plain(f"{told}; {result.states[name]}"))
    if result.missed:
        console.print(f"{result.missed} times no camera gave a picture")
    if result.ended:
        console.print(plain(f"ended early: {result.ended}"))
    console.print(plain(f"{out}: {result.total_bytes / BYTES_PER_MB:.1f} MB"))
