"""Sets up logging: lines for people on a terminal, JSON lines for machines; passwords hidden."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import structlog

from agent.secrets import mask_url

if TYPE_CHECKING:
    from agent.config import LogConfig


CHATTY = ("tuf", "securesystemslib")
"""Libraries that say at the level of our own lines what each message from outside lacks."""


def set_up(config: LogConfig) -> None:
    """Send everything that is logged to standard error.

    Times are UTC in ISO 8601. Modules log through the standard library; structlog renders.
    """
    terminal = sys.stderr.isatty()
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
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


def hide_passwords(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Replace passwords in URLs, wherever in an entry they are.

    Modules hide what they know of themselves; libraries' messages and tracebacks do not.
    """
    return {k: mask_url(v) if isinstance(v, str) else v for k, v in event.items()}
