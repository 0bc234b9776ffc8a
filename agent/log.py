"""Sets up logging: lines for people on a terminal, JSON lines for machines; passwords hidden.

Where standard error is the journal's, each line begins with its priority (`<4>`, sd-daemon(3)), so
that `journalctl -p warning` finds it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TextIO

from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import LogConfig

JOURNAL_VARIABLE = "JOURNAL_STREAM"
"""Device and inode of the stream that systemd made, as "device:inode": systemd.exec(5)."""

PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""syslog's numbers by the least level; all below is 7, debug."""

DEBUG_PRIORITY = 7

COLOURS = ((logging.ERROR, "\x1b[31m"), (logging.WARNING, "\x1b[33m"), (logging.INFO, "\x1b[32m"))
"""Of a level's name on a terminal, by the least level."""

PLAIN = "\x1b[0m"

CHATTY = ("tuf", "securesystemslib")
"""Libraries that say at the level of our own lines what each message from outside lacks."""


def set_up(config: LogConfig) -> None:
    """Send everything that is logged to standard error; times are UTC in ISO 8601."""
    terminal = sys.stderr.isatty()
    console = config.format == "console" or (config.format == "auto" and terminal)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        Lines(
            console=console,
            colours=terminal and not os.environ.get("NO_COLOR"),
            priorities=to_journal(os.environ, sys.stderr),
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    for name in CHATTY:
        # Whoever publishes wrong messages must not fill the log.
        logging.getLogger(name).setLevel(
            logging.NOTSET if config.level == "debug" else logging.WARNING
        )


class Lines(logging.Formatter):
    """Makes lines of records. Small on purpose: a library for it takes a tenth of a start.

    Modules hide the passwords they know of; libraries' messages and tracebacks do not, so URLs lose
    theirs here.

    Args:
        console: for people; else one JSON object a line.
        colours: people's terminal shows them.
        priorities: begin every line with its priority.
    """

    def __init__(self, *, console: bool, colours: bool, priorities: bool) -> None:
        super().__init__()
        self._console = console
        self._colours = colours
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        entry = {
            "event": mask_url(record.getMessage()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).strftime(
                "%Y-%m-%dT%H:%M:%S.%fZ"
            ),
        }
        if record.exc_info:
            entry["exception"] = mask_url(self.formatException(record.exc_info))
        if record.stack_info:
            entry["stack"] = mask_url(self.formatStack(record.stack_info))
        text = (
            self._readable(entry, record.levelno)
            if self._console
            else json.dumps(entry, ensure_ascii=False)
        )
        if not self._priorities:
            return text
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(mark + line for line in text.split("\n"))

    def _readable(self, entry: Mapping[str, str], level: int) -> str:
        name = f"{entry['level']:<8}"
        colour = next((c for least, c in COLOURS if level >= least), "") if self._colours else ""
        if colour:
            name = f"{colour}{name}{PLAIN}"
        line = f"{entry['timestamp']} [{name}] {entry['event']} [{entry['logger']}]"
        return "\n".join([line, *(entry[k] for k in ("exception", "stack") if k in entry)])


def priority(level: int) -> int:
    """The number syslog has for a level of `logging`."""
    return next((n for least, n in PRIORITIES if level >= least), DEBUG_PRIORITY)


def to_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether a stream is the one that systemd connected to the journal, not another."""
    device, _, inode = environ.get(JOURNAL_VARIABLE, "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
