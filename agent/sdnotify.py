"""Tells systemd how the service is, by datagrams to the socket that it names. No library.

Where no socket is named everything here does nothing; a message that cannot be delivered is
dropped, because whoever tells must never be hurt by it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
MAX_STATUS_CHARS = 200
"""`systemctl status` shows one line."""

US_PER_S = 1_000_000
NS_PER_US = 1_000


class Notifier:
    """Speaks to the service manager; from any thread.

    Args:
        environ: where the manager left its socket and the watchdog's time.

    Attributes:
        watchdog_s: without `alive` for this long the manager ends the service; None: it does not.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get(SOCKET_VARIABLE, ""))
        self.watchdog_s = _watchdog_s(environ)

    @property
    def heard(self) -> bool:
        """Whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """The service does its work, after the start or after a reload."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line about how it goes."""
        self._send(_status(text))

    def alive(self) -> None:
        """Every stage makes progress."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def reloading(self, status: str) -> None:
        """The configuration is read anew; `ready` ends it."""
        monotonic_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // NS_PER_US
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}", _status(status))

    def stopping(self, status: str) -> None:
        """The service ends."""
        self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as speaker:
            speaker.sendto("\n".join(lines).encode(), self._address)


def _address(name: str) -> str | None:
    """A path, or a name in the abstract namespace; other kinds (vsock) are not spoken."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _status(text: str) -> str:
    # A line break would begin another assignment.
    return "STATUS=" + " ".join(text.split())[:MAX_STATUS_CHARS]


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """The watchdog's time, if it is meant for this process."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / US_PER_S
