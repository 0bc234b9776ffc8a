"""The command `vigia`: registers the commands and turns errors into exit codes.

Command modules import only typer at their top, so that `vigia --help` is quick; what a command
needs is imported when it runs.

Exit codes: 0 done, 1 failed, 2 a mistake in what was given (file, option, configuration),
130 interrupted. Typer sees to the last, and to readers like `head` that leave early.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from agent.commands import (
    bench,
    bundle,
    cameras,
    check,
    config,
    demo,
    detect,
    engine,
    enroll,
    fleet,
    logs,
    model,
    run,
    service,
    status,
    supportbundle,
    update,
    version,
    watch,
)
from agent.errors import AgentError, OutputError, ServiceError
from engines.errors import EngineError, InferenceError

FAILED = 1
MISTAKE = 2

RUNTIME_FAILURES = (InferenceError, OutputError, ServiceError)
"""Nobody's mistake; all other errors of ours tell the user what to mend."""

DEBUG_VARIABLE = "VIGIA_DEBUG"
"""Set, by `--debug` too: errors are raised with their tracebacks."""

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


app.command("run")(run.run)
app.command("check")(check.check)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("support-bundle")(supportbundle.support_bundle)
app.add_typer(config.app, name="config")
app.add_typer(cameras.app, name="cameras")
app.add_typer(model.app, name="model")
app.add_typer(engine.app, name="engine")
app.add_typer(service.app, name="service")
app.add_typer(enroll.app, name="enroll")
app.add_typer(update.app, name="update")
app.add_typer(bundle.app, name="bundle")
app.add_typer(fleet.app, name="fleet")
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
        _fail(error, FAILED if isinstance(error, RUNTIME_FAILURES) else MISTAKE)
    except ImportError as error:
        from agent.opencv import explain  # noqa: PLC0415 - tries the import again

        _fail(explain(error), MISTAKE)


def _fail(error: Exception, code: int) -> NoReturn:
    """Say what went wrong, a line for each mistake, and end."""
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    for line in str(error).splitlines() or [type(error).__name__]:
        shown = line if line.isprintable() else ascii(line)[1:-1]
        print(f"error: {shown}", file=sys.stderr)  # noqa: T201 - the command's own words
    sys.exit(code)


if __name__ == "__main__":
    main()
