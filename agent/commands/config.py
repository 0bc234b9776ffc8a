"""`vigia config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from agent.desired import Desired
    from agent.reloadplan import Plan

app = typer.Typer(no_args_is_help=True, help="Look at the configuration.")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors that check as you type.

    Example: [bold]vigia config schema > agent.schema.json[/bold]
    """
    import json

    from agent.configfile import schema as make_schema

    typer.echo(json.dumps(make_schema(), indent=2))


@app.command("show")
def show(config: ConfigOption = DEFAULT_CONFIG, json_output: JsonOption = False) -> None:
    """Print every setting as the agent sees it, defaults included and secrets hidden.

    Example: [bold]vigia config show -c agent.yaml[/bold]
    """
    import json

    import yaml

    from agent.configfile import shown

    values = shown(config)
    if json_output:
        typer.echo(json.dumps(values, indent=2))
    else:
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@app.command("diff")
def diff(
    new: Annotated[
        Path | None,
        typer.Argument(
            metavar="NEW",
            help="The configuration to compare with; default: the file with settings from afar.",
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="Where settings from afar are kept."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Print what a reload would do if NEW took the place of the configuration.

    Without NEW: what an operator's settings from afar change of the file. They are kept in the
    state folder of the agent, for the service /var/lib/vigia.

    Example: [bold]vigia config diff new.yaml -c agent.yaml[/bold]
    """
    import json

    from agent.configfile import load
    from agent.desired import DesiredFile
    from agent.lastgood import LastGood
    from agent.reloadplan import plan

    desired = None
    local = load(config)
    if new is not None:
        effective = load(new)
    else:
        desired = DesiredFile(LastGood(config, state).path).load()
        effective = local if desired is None else load(config, over=desired.values)
    way = plan(local, effective)
    found: dict[str, object] = {
        "cameras_ended": list(way.removed),
        "cameras_started": list(way.added),
        "models_swapped": list(way.models),
        "sections": list(way.sections),
        "restart": list(way.restart),
    }
    if new is None:
        found["afar"] = None if desired is None else _as_json(desired)
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    lines = [] if desired is None else [f"settings {desired.version.counter} from afar:"]
    typer.echo("\n".join([*lines, *_told(way)]))


def _told(way: Plan) -> list[str]:
    ends, starts = set(way.removed), set(way.added)
    lines = [f"camera {name}: changed" for name in sorted(ends & starts)]
    lines += [f"camera {name}: ended" for name in sorted(ends - starts)]
    lines += [f"camera {name}: started" for name in sorted(starts - ends)]
    lines += [f"model {slot}: loaded anew and swapped in" for slot in way.models]
    lines += [f"{section}: changed" for section in way.sections]
    lines += [f"{key}: with a restart" for key in way.restart]
    return lines or ["nothing changes"]


def _as_json(desired: Desired) -> dict[str, object]:
    from agent.configfile import plain

    version = desired.version
    return {
        "counter": version.counter,
        "digest": version.digest,
        "settings": plain(desired.values),
    }
