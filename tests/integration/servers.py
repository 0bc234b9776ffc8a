"""Servers that integration tests start, stop and break."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.ports import free_port

SYSTEM_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")


def require(available: bool, what: str) -> None:
    """Skip with the reason, or fail where everything must be there."""
    if not available:
        message = f"needs {what}; scripts/test installs it on Debian"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def has_rtsp_server() -> bool:
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); "
        "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
        "raise SystemExit(Gst.ElementFactory.find('x264enc') is None)"
    )
    if shutil.which(SYSTEM_PYTHON) is None:
        return False
    run = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, timeout=30, check=False)
    return run.returncode == 0


class RtspServer:
    """A real RTSP server in a process of its own."""

    def __init__(self, size: tuple[int, int] = (320, 240), credentials: tuple[str, ...] = ()):
        self.port = free_port()
        self.size = size
        self.credentials = credentials
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "", path: str = "stream") -> str:
        return f"rtsp://{user}127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        command = [SYSTEM_PYTHON, str(SCRIPT), str(self.port), *map(str, self.size)]
        self._process = subprocess.Popen(
            [*command, *self.credentials], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
