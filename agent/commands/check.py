"""`vigia check`."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption


def check(
    config: ConfigOption = DEFAULT_CONFIG,
    no_network: Annotated[
        bool, typer.Option("--no-network", help="Leave the broker and network cameras alone.")
    ] = False,
    timeout_s: Annotated[
        float, typer.Option(help="Seconds to wait for each camera and the broker.", min=0.1)
    ] = 10.0,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Look at the machine too: versions, disk, clock, heat ..."),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Try a configuration: load the models, open the cameras, log in to the broker.

    With [bold]--deep[/bold] everything around it too: JetPack, TensorRT, CUDA, OpenCV and Python
    against each other, what cameras send (codec, key frames, rate), the broker's access list and
    certificate, disk, clock, power mode, heat, permissions. What is not good has a fix.

    Exit code 0 if all would work, 1 if something does not, 2 if the configuration is wrong.

    Example: [bold]vigia check --deep -c agent.yaml[/bold]
    """
    import json

    from agent.check import as_dicts, exit_code
    from agent.check import check as look
    from agent.commands.output import findings_table, output
    from agent.configfile import load

    settings = load(config)
    with output(stderr=True).status("trying models, cameras and broker ..."):
        if deep:
            from agent.deep import full_check

            findings = full_check(settings, config, network=not no_network, timeout_s=timeout_s)
        else:
            findings = look(settings, network=not no_network, timeout_s=timeout_s)
    if json_output:
        typer.echo(json.dumps(as_dicts(findings)))
    else:
        output().print(findings_table(findings))
    raise typer.Exit(exit_code(findings))
