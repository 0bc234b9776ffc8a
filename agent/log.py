"""Sets up logging: lines for people on a terminal, JSON lines for machines; passwords hidden.

Where standard error is the journal's, each line begins with its priority (`<4>`, sd-daemon(3)), so
that `journalctl -p warning` finds it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

from agent.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import LogConfig

JOURNAL_VARIABLE = "JOURNAL_STREAM"
"""Device and inode of the stream that systemd made, as "device:inode": systemd.exec(5)."""

PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""syslog's numbers by the least level; all below is 7, debug."""

DEBUG_PRIORITY = 7

CHATTY = ("tuf", "securesystemslib")
"""Libraries that say at the level of our own lines what each message from outside lacks."""


def set_up(config: LogConfig) -> None:
    """Send everything that is logged to standard error.

    Times are UTC in ISO 8601. Modules log through the standard library; structlog renders.
    """
    terminal = sys.stderr.isatty()
    journal = to_journal(os.environ, sys.stderr)
    console = config.format == "console" or (config.format == "auto" and terminal)
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=terminal and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
        )
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = PriorityFormatter if journal else structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                hide_passwords,
                renderer,
            ],
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


class PriorityFormatter(structlog.stdlib.ProcessorFormatter):
    """Begins every line with its priority."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(mark + line for line in super().format(record).split("\n"))


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


def hide_passwords(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Replace passwords in URLs, wherever in an entry they are.

    Modules hide what they know of themselves; libraries' messages and tracebacks do not.
    """
    return {k: mask_url(v) if isinstance(v, str) else v for k, v in event.items()}
