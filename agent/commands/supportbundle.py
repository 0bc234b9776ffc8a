"""`vigia support-bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption


def support_bundle(
    config: ConfigOption = DEFAULT_CONFIG,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: named by time.")
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not try cameras, models and broker.")
    ] = False,
    no_network: Annotated[
        bool, typer.Option("--no-network", help="Leave the broker and network cameras alone.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option(help="Seconds to wait for each camera and the broker.", min=0.1)
    ] = 10.0,
    json_output: JsonOption = False,
) -> None:
    """Write one file for whoever helps: versions, settings, checks, status, log; no secrets.

    Passwords, tokens and keys are taken out; no picture, model or key file is read. The list of
    what it took is printed and is in the file as contents.json. Look through it before you send it.

    Example: [bold]vigia support-bundle -o report.tar.gz[/bold]
    """
    import json
    import socket
    import time
    from dataclasses import asdict

    from agent.commands.output import output as console
    from agent.commands.output import plain
    from agent.configfile import load
    from agent.errors import AgentError
    from agent.redact import Redactor, secrets_of
    from agent.supportbundle import write
    from agent.supportparts import parts

    try:
        known = list(secrets_of(load(config)))
    except AgentError:
        # A configuration that cannot be read is what help may be needed for.
        known = []
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = output or Path(f"vigia-{socket.gethostname()}-{stamp}.tar.gz")
    wanted = parts(config, checks=not no_check, network=not no_network, timeout_s=timeout_s)
    with console(stderr=True).status("collecting ..."):
        entries = write(path, wanted, Redactor(known))
    if json_output:
        typer.echo(json.dumps({"file": str(path), "parts": [asdict(e) for e in entries]}))
        return
    shown = console()
    for entry in entries:
        told = f"left out: {entry.problem}" if entry.problem else f"{entry.size} bytes"
        told += f", {entry.cut} cut" if entry.cut else ""
        shown.print(plain(f"{entry.name:20} {told} ({entry.what})"))
    shown.print(plain(f"wrote {path}; look through it before you send it"))
