"""`vigia update`: how model updates stand on this device, and the way back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.update.reader import Reader
    from agent.update.record import Installed

app = typer.Typer(no_args_is_help=True, help="Look at this device's model updates, and undo one.")

StateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="State folder; default: as the file says."),
]

FAILED = 1


@app.command("status")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what each slot serves, what is under way, and what is never tried again.

    Works beside a running agent and without one. Where the state is damaged, it says what serves
    nevertheless, and exits with 1.

    Example: [bold]vigia update status -c /etc/vigia/agent.yaml[/bold]
    """
    import json

    from agent.commands.updatetext import print_status, status_of, status_without
    from agent.errors import StoreError

    folder, slots = _folder(config, state)
    try:
        with _reading(folder) as reader:
            shown = status_of(reader, slots)
    except StoreError as error:
        shown = status_without(folder, slots, str(error))
    if json_output:
        typer.echo(json.dumps(shown))
    else:
        print_status(shown)
    raise typer.Exit(FAILED if shown["problem"] else 0)


@app.command("history")
def history(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = None,
    limit: Annotated[int, typer.Option(help="So many, the newest first.", min=1)] = 20,
    json_output: JsonOption = False,
) -> None:
    """Show how updates ended: committed, rejected or rolled back, why, and how long they took.

    Example: [bold]vigia update history --limit 5[/bold]
    """
    import json

    from agent.commands.updatetext import history_of, print_history

    folder, _ = _folder(config, state)
    with _reading(folder) as reader:
        shown = history_of(reader, limit)
    if json_output:
        typer.echo(json.dumps(shown))
    else:
        print_history(shown)


@app.command("rollback")
def rollback(
    slot: Annotated[
        str | None, typer.Argument(help="Model slot; may be left out where only one can go back.")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Goes into the history and the report.")
    ] = "asked for at the device",
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """Ask for the model that served before the last update; that update is never tried again.

    The agent does it within seconds, or when it starts next. The release floor stays, so the
    controller cannot bring the older release back by a new assignment.

    Example: [bold]vigia update rollback main --reason "misses small parts"[/bold]
    """
    import json
    import time

    from agent.errors import ConfigError
    from agent.update.requests import Request, ask

    folder, _ = _folder(config, state)
    with _reading(folder) as reader:
        slot = slot or _only_slot(reader)
        refusal = reader.rollback_refusal(slot)
        active, previous = reader.active(slot), reader.previous(slot)
    if refusal is not None or active is None:
        raise ConfigError(f"no rollback: {refusal}")
    if not reason.isprintable():
        raise ConfigError("--reason must be one line of printable text")
    ask(folder, Request(slot=slot, digest=active.digest, reason=reason, at=int(time.time())))
    if json_output:
        back = None if previous is None else previous.digest
        typer.echo(json.dumps({"slot": slot, "from": active.digest, "to": back}))
        return
    typer.echo(
        f"asked for: slot {slot} goes back from {_named(active)} to {_named(previous)}; the agent "
        "does it now if it runs, else when it starts (vigia update status)"
    )


def _folder(config: Path, state: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The state folder, and the slots of the configuration where one was read."""
    if state is not None:
        return state, ()
    from agent.configfile import load
    from agent.errors import ConfigError
    from agent.statefolder import default_state_dir

    settings = load(config)
    if settings.updates is None:
        raise ConfigError(
            f"{config}: model updates are not configured (key `updates`); --state DIR looks at a "
            "state folder all the same"
        )
    return settings.updates.state_dir or default_state_dir(), tuple(sorted(settings.models))


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[Reader]:
    from agent.update.database import ReadOnly
    from agent.update.reader import Reader

    with contextlib.closing(ReadOnly(folder)) as source:
        yield Reader(source)


def _only_slot(reader: Reader) -> str:
    from agent.errors import ConfigError

    slots = [r.slot for r in reader.records() if reader.rollback_refusal(r.slot) is None]
    if len(slots) == 1:
        return slots[0]
    known = ", ".join(slots) or "none"
    raise ConfigError(f"name the slot to roll back; those that can go back: {known}")


def _named(installed: Installed | None) -> str:
    return (
        "the configured model" if installed is None else f"{installed.family} {installed.version}"
    )
