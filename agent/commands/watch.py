"""`vigia watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import JsonOption


def watch(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Take the broker from this file.")
    ] = None,
    host: Annotated[str, typer.Option(help="Broker, without a configuration file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 1883,
    prefix: Annotated[str, typer.Option(help="Topic prefix.")] = "vigia/v1",
    device: Annotated[str, typer.Option(help="Device id; + for all.")] = "+",
    count: Annotated[int | None, typer.Option(help="End after so many messages.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after this time.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Show live what devices publish: rates, ages and objects, camera by camera.

    With [bold]--json[/bold], every detection message as one line.

    Example: [bold]vigia watch --host broker.local --seconds 60[/bold]
    """
    from agent.config import MqttConfig
    from agent.configfile import load
    from agent.watch import watch_json, watch_table

    mqtt = (
        load(config).mqtt if config is not None else MqttConfig(host=host, port=port, prefix=prefix)
    )
    show = watch_json if json_output else watch_table
    show(mqtt, device, count, seconds)
