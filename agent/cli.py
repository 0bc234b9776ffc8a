"""The command `vigia`: registers the commands and turns errors into exit codes.

Command modules import only typer at their top, so that `vigia --help` is quick; what a command
needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 a mistake in what was given (file, option, configuration),
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from agent.commands import (
    bench,
    cameras,
    check,
    config,
    demo,
    detect,
    model,
    run,
    version,
    watch,
)
from agent.errors import AgentError
from engines.errors import EngineError, InferenceError

FAILED = 1
MISTAKE = 2
INTERRUPTED = 130

app = typer.Typer(
    name="vigia",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: vigia detect MODEL.onnx PICTURE.jpg --save out.jpg",
)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Edge runtime agent for vision devices: cameras in, detections out, over MQTT."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


DEBUG_VARIABLE = "VIGIA_DEBUG"

app.command("run")(run.run)
app.command("check")(check.check)
app.add_typer(config.app, name="config")
app.add_typer(cameras.app, name="cameras")
app.add_typer(model.app, name="model")
app.command("detect")(detect.detect)
app.command("bench")(bench.bench)
app.command("watch")(watch.watch)
app.command("demo")(demo.demo)
app.command("version")(version.version)


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except (AgentError, EngineError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"error: {line}", file=sys.stderr)  # noqa: T201 - the command's own words
        sys.exit(FAILED if isinstance(error, InferenceError) else MISTAKE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader, `head` for one, has had enough; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
