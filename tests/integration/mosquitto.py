"""A real Mosquitto on free loopback ports, that a test can kill, pause and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from typing_extensions import Self

from tests.integration.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_S = 10.0


def binary() -> str:
    """Mosquitto's path; skips the test where there is none, except in CI."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        message = "Mosquitto is not installed (apt-get install mosquitto)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class Mosquitto:
    """One broker process.

    Args:
        folder: for its configuration and log.
        listeners: lines of configuration by listener name; each gets a port of its own.
        general: lines for the whole broker.

    Attributes:
        ports: port by listener name.
        log: what it says it does, for each packet.
    """

    def __init__(
        self, folder: Path, listeners: Mapping[str, tuple[str, ...]], general: tuple[str, ...] = ()
    ) -> None:
        self._binary = binary()
        self.ports = {name: free_port() for name in listeners}
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        lines = ["user root", "per_listener_settings true", "persistence false", *general]
        for name, settings in listeners.items():
            lines += [f"listener {self.ports[name]} 127.0.0.1", *settings]
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Port of the first listener."""
        return next(iter(self.ports.values()))

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-v", "-c", self._config], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        for port in self.ports.values():
            while not _listens(port):
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                # Nothing tells when a port opens; the deadline above bounds this.
                time.sleep(0.01)

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word to anyone."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it answer nothing while its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(START_S)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False
