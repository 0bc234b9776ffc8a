"""`vigia config`."""

from __future__ import annotations

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
