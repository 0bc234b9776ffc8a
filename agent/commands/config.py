"""`vigia config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption

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
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The configuration to compare with.")],
    config: ConfigOption = DEFAULT_CONFIG,
    json_output: JsonOption = False,
) -> None:
    """Print what a reload would do if NEW took the place of the configuration.

    Example: [bold]vigia config diff new.yaml -c agent.yaml[/bold]
    """
    import json

    from agent.configfile import load
    from agent.reloadplan import plan

    way = plan(load(config), load(new))
    found = {
        "cameras_ended": list(way.removed),
        "cameras_started": list(way.added),
        "models_swapped": list(way.models),
        "sections": list(way.sections),
        "restart": list(way.restart),
    }
    if json_output:
        typer.echo(json.dumps(found, indent=2))
        return
    ends, starts = set(way.removed), set(way.added)
    lines = [f"camera {name}: changed" for name in sorted(ends & starts)]
    lines += [f"camera {name}: ended" for name in sorted(ends - starts)]
    lines += [f"camera {name}: started" for name in sorted(starts - ends)]
    lines += [f"model {slot}: loaded anew and swapped in" for slot in way.models]
    lines += [f"{section}: changed" for section in way.sections]
    lines += [f"{key}: with a restart" for key in way.restart]
    typer.echo("\n".join(lines or ["nothing changes"]))
