"""`vigia run`."""

from __future__ import annotations

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the agent until it is stopped, or until all files are analysed.

    SIGTERM or Ctrl-C ends it within five seconds, with everything published. Exit code 0 after a
    stop or the end of all files, 1 after a failure, 2 for a mistake in the configuration.

    Example: [bold]vigia run -c examples/conveyor/agent.yaml[/bold]
    """
    from agent import daemon, log
    from agent.configfile import load

    settings = load(config)
    log.set_up(settings.log)
    raise typer.Exit(daemon.run(settings))
