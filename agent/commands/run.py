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
        from agent.configfile import load, load_control
        from agent.errors import ConfigError
        from agent.lastgood import LastGood
        from agent.threads import leave
    finally:
        gc.freeze()
        gc.enable()

    mistake = ""
    try:
        settings = load(config)
    except ConfigError as error:
        good = LastGood(config).load()
        if good is None and "NOTIFY_SOCKET" not in os.environ:
            # Somebody is there who sees the mistake at once.
            raise
        # As a service, it says from afar what is wrong, if it can reach its broker.
        settings, mistake = good or load_control(config), str(error)
    log.set_up(settings.log)
    code = daemon.run(settings, config, mistake)
    leave(code, READER_PREFIX)
    raise typer.Exit(code)
