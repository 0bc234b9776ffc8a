"""A socket at which a service manager would listen, and what it hears."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from tests.integration.agents import SOON_S

if TYPE_CHECKING:
    from pathlib import Path

WATCHDOG_S = 2.0


class Manager:
    """Listens.

    Args:
        folder: where the socket is made.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.name)
        self.heard: list[str] = []

    def environ(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.name, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}

    def wait(self, line: str, within_s: float = SOON_S) -> tuple[str, float]:
        """Wait for a line that begins so; returns it and how long it took."""
        began = time.monotonic()
        while (left := began + within_s - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                lines = self._socket.recv(4096).decode().split("\n")
            except TimeoutError:
                break
            self.heard += lines
            for found in lines:
                if found.startswith(line):
                    return found, time.monotonic() - began
        raise AssertionError(f"no {line} within {within_s} s; heard {self.heard[-20:]}")

    def drain(self) -> None:
        self._socket.settimeout(0)
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()
