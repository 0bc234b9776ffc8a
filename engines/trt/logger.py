"""What TensorRT says, kept until somebody asks: its calls fail with None and a line in the log."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

KEPT_LINES = 50
"""Lines of severity ERROR and above that are kept; errors carry them."""

LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
}
"""TensorRT's severities as ours; VERBOSE lines, hundreds for each layer, are dropped."""


class LogLines:
    """The last lines of severity ERROR and above; may be used by several threads.

    Args:
        tell: takes every line that is not dropped, with its severity's name; it must not raise.
    """

    def __init__(self, tell: Callable[[str, str], None] | None = None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._lines: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)
        self._count = 0

    @property
    def position(self) -> int:
        """How many lines were added so far; for `since`."""
        return self._count

    def add(self, severity: str, text: str) -> None:
        """Take one line."""
        level = LEVELS.get(severity)
        if level is None:
            return
        log.log(level, "TensorRT: %s", text)
        if level >= logging.ERROR:
            with self._lock:
                self._count += 1
                self._lines.append((self._count, text.strip()))
        if self._tell is not None:
            self._tell(severity, text)

    def since(self, position: int) -> list[str]:
        """The kept lines added after `position`, oldest first."""
        with self._lock:
            return [text for number, text in self._lines if number > position]


def make_logger(module: Any, lines: LogLines) -> Any:
    """An `ILogger` of this TensorRT that adds to `lines`.

    TensorRT keeps the first logger for the whole process and calls it from its own threads.
    """

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            # Required by the binding: without it every call raises TypeError.
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            lines.add(severity.name, msg)

    return Logger()
