"""`vigia watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import DEFAULT_CONFIG, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config import MqttConfig
    from agent.wire.topics import Topics

PASSWORD_VARIABLE = "VIGIA_MQTT_PASSWORD"  # noqa: S105 - the name of a variable

INBOX_MESSAGES = 10_000
"""Messages that may wait while the terminal is slow; more are lost, as at any slow reader."""

REDRAW_S = 0.25

LOOK_S = 0.05

CLOSE_S = 1.0


def watch(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help=f"Take the broker of this file; default: {DEFAULT_CONFIG}.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The broker, instead of a file.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port.", min=1, max=65_535)] = None,
    username: Annotated[
        str | None, typer.Option(help=f"User name; its password stands in ${PASSWORD_VARIABLE}.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="First levels of the topics.")] = None,
    device: Annotated[str, typer.Option(help="Watch this device only.")] = "+",
    count: Annotated[int | None, typer.Option(help="End after N detections.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="End after N seconds.", min=0)] = None,
    json_output: JsonOption = False,
) -> None:
    """Show what agents publish: cameras, rates, ages and objects, as it arrives at the broker.

    On a terminal a live table; otherwise one line a detection message, with
    [bold]--json[/bold] the message itself.

    Example: [bold]vigia watch --host localhost[/bold]
    """
    import queue
    import secrets
    import sys
    import time

    from agent import log
    from agent.config import LogConfig
    from agent.errors import BrokerError
    from agent.mqttlink import Link
    from agent.wire.topics import Topics

    settings = _settings(config, host, port, username, prefix)
    # The first failure is this command's own error; later ones are news.
    log.set_up(LogConfig(level="error"))
    inbox: queue.Queue[tuple[str, bytes]] = queue.Queue(INBOX_MESSAGES)
    table = sys.stdout.isatty() and not json_output
    link = Link(settings, f"vigia-watch-{secrets.token_hex(4)}")
    for topic in _topics(Topics(settings.prefix, device), table=table):
        link.subscribe(topic, lambda *message: None if inbox.full() else inbox.put(message))
    link.start()
    try:
        while not link.wait_connected(LOOK_S):
            # An agent tries again for ever; whoever types a command wants to know at once.
            if link.reason:
                raise BrokerError(link.reason)
        log.set_up(LogConfig(level="warning"))
        arriving = _until(inbox, None if seconds is None else time.monotonic() + seconds)
        if table:
            _show(arriving, count)
        else:
            _print(arriving, count, as_json=json_output)
    finally:
        link.close(CLOSE_S)


def _settings(
    config: Path | None,
    host: str | None,
    port: int | None,
    username: str | None,
    prefix: str | None,
) -> MqttConfig:
    """The broker, of the file or of the options."""
    import os

    from agent.config import MqttConfig
    from agent.configfile import from_options, load
    from agent.errors import ConfigError

    options = {"port": port, "username": username, "prefix": prefix}
    given = {name: value for name, value in options.items() if value is not None}
    if host is None:
        if given:
            raise ConfigError(f"--{next(iter(given))} needs --host; the file has its own settings")
        return load(config or DEFAULT_CONFIG).mqtt
    if config is not None:
        raise ConfigError("--host and --config: give one of them")
    password = os.environ.get(PASSWORD_VARIABLE)
    return from_options(MqttConfig, {"host": host, "password": password, **given})


def _topics(topics: Topics, *, table: bool) -> list[str]:
    detections = [topics.detections("+")]
    return [*detections, topics.status, topics.camera_status("+")] if table else detections


def _until(inbox: object, end_s: float | None) -> Iterator[tuple[str, bytes] | None]:
    """Messages as they come, None when it is quiet or time to draw, until the end."""
    import queue
    import time

    assert isinstance(inbox, queue.Queue)
    while True:
        left = None if end_s is None else end_s - time.monotonic()
        if left is not None and left <= 0:
            return
        try:
            yield inbox.get(timeout=REDRAW_S if left is None else min(REDRAW_S, left))
        except queue.Empty:
            yield None


def _print(
    arriving: Iterator[tuple[str, bytes] | None], count: int | None, *, as_json: bool
) -> None:
    """One line a detection message."""
    import json
    import time

    from agent.watch import Board

    board = Board()
    printed = 0
    for message in arriving:
        row = board.take(*message, time.monotonic(), time.time()) if message else None
        if row is None or row.last is None:
            continue
        typer.echo(json.dumps(row.last.raw) if as_json else row.line())
        printed += 1
        if printed == count:
            return


def _show(arriving: Iterator[tuple[str, bytes] | None], count: int | None) -> None:
    """A table that follows the messages."""
    import time

    from rich.live import Live

    from agent.commands.output import board_table, output
    from agent.watch import Board

    board = Board()
    seen = 0
    drawn = time.monotonic()
    with Live(board_table(board, drawn), console=output(), auto_refresh=False) as live:
        for message in arriving:
            now = time.monotonic()
            if message and board.take(*message, now, time.time()) is not None:
                seen += 1
            if now - drawn >= REDRAW_S or seen == count:
                live.update(board_table(board, now), refresh=True)
                drawn = now
            if seen == count:
                return
