"""`vigia run`."""

from __future__ import annotations

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the agent until it is stopped, or until all files are analysed.

    SIGTERM or Ctrl-C ends it within five seconds, with everything published. Exit code 0 after a
    stop or the end of all files, 1 after a failure, 2 for a mistake in the configuration. If it ran
    well with the file before, it goes on with the last good copy instead, and says so. SIGHUP reads
    the file again; what can change at once does.

    Example: [bold]vigia run -c examples/conveyor/agent.yaml[/bold]
    """
    import gc
    import os

    # What is imported stays: looking through it for garbage would take an eighth of the start, and
    # again and again later.
    gc.disable()
    try:
        from agent import daemon, log
        from agent.capture.camera import READER_PREFIX
        from agent.startconfig import read_start
        from agent.threads import leave
    finally:
        gc.freeze()
        gc.enable()

    begin = read_start(config, service="NOTIFY_SOCKET" in os.environ)
    log.set_up(begin.config.log)
    code = daemon.run(begin, config)
    leave(code, READER_PREFIX)
    raise typer.Exit(code)
