"""What systemd does for the agent: starts it again, hears its watchdog, ends what hangs."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WATCHDOG_S = 12.0
"""The unit has 30 s; shorter, so that a soak has time for more of them."""

ABORT_S = 1.0
"""TimeoutAbortSec=: from SIGABRT to SIGKILL; a frozen process takes only the second."""

RESTART_S = 0.2
STOP_S = 15.0
STOPPED = "stopped"
"""A cause: it was asked to stop, and must end well."""

SAMPLE_S = 1.0
START_S = 40.0
"""READY must be said within this, on a machine that does other things as well."""


@dataclass
class Life:
    """One process.

    Attributes:
        began_s: when it was started, monotonic.
        ready_s: how long READY took; None while it was not said.
        ended_s: when it ended, monotonic.
        cause: why it ended, in words; empty while it runs.
        samples: time (monotonic), resident bytes, descriptors.
    """

    began_s: float
    ready_s: float | None = None
    ended_s: float | None = None
    cause: str = ""
    samples: list[tuple[float, int, int]] = field(default_factory=list)


class Supervisor:
    """Keeps one program running until it is closed.

    Args:
        command: the program.
        environment: its variables; the notify socket is added.
        log: where its output goes.
        notify: path of the notify socket.

    Attributes:
        lives: of the program, the present one last.
        crashes: sentences: ends that nobody asked for, starts that never became ready.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, notify: Path
    ) -> None:
        self.lives: list[Life] = []
        self.crashes: list[str] = []
        self._command = list(command)
        self._log = log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(notify))
        self._environment = {
            **environment,
            "NOTIFY_SOCKET": str(notify),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = ""
        self._frozen = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the program; returns when its process is there."""
        self._thread.start()
        self._await(lambda: self._process is not None, 10)

    def end(self, number: signal.Signals, cause: str) -> None:
        """Send a signal that ends the program, and wait for the next one."""
        with self._changed:
            count = len(self.lives)
            self._asked = cause
            self._signal(signal.SIGCONT)
            self._signal(number)
        self._await(lambda: len(self.lives) > count, STOP_S + 10)

    def freeze(self) -> None:
        """SIGSTOP."""
        with self._changed:
            self._frozen = True
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        with self._changed:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def hang(self) -> float:
        """Freeze the program until the watchdog has ended it.

        Returns:
            Seconds until then; the next process is there.
        """
        with self._changed:
            life, count = self.lives[-1], len(self.lives)
        # Before READY nobody listens for the watchdog.
        self._await(lambda: life.ready_s is not None, START_S)
        began = time.monotonic()
        self.freeze()
        self._await(lambda: len(self.lives) > count, WATCHDOG_S + 20)
        assert life.ended_s is not None
        return life.ended_s - began

    def close(self) -> int:
        """Stop it as an operator would.

        Returns:
            Its exit code; -9 if it had to be killed.
        """
        with self._changed:
            self._closing, self._asked = True, STOPPED
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
        process = self._process
        code = 0
        if process is not None:
            try:
                code = process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait(10)
        self._thread.join(STOP_S)
        self._socket.close()
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _await(self, condition, timeout_s: float) -> None:  # type: ignore[no-untyped-def]
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), "the agent did not follow"

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                with self._log.open("ab") as log:
                    self._process = subprocess.Popen(
                        self._command, stdout=log, stderr=log, env=self._environment
                    )
                self._asked, self._frozen = "", False
                life = Life(time.monotonic())
                self.lives.append(life)
                self._changed.notify_all()
            self._watch(self._process, life)
            with self._changed:
                if not life.cause:
                    life.cause = self._asked or f"by itself, code {self._process.returncode}"
                if self._asked == STOPPED and self._process.returncode:
                    self.crashes.append(f"asked to stop, it ended with {self._process.returncode}")
                if not self._asked:
                    since = life.ended_s - life.began_s if life.ended_s else 0.0
                    self.crashes.append(f"{life.cause}, after {since:.0f} s")
                self._process = None
            # The supervisor's RestartSec=.
            time.sleep(RESTART_S)

    def _watch(self, process: subprocess.Popen[bytes], life: Life) -> None:
        handle = os.pidfd_open(process.pid)
        look = psutil.Process(process.pid)
        heard = sample_at = time.monotonic()
        try:
            while True:
                ready, _, _ = select.select([handle, self._socket], [], [], SAMPLE_S / 4)
                now = time.monotonic()
                if self._socket in ready:
                    said = self._socket.recv(8192).decode("utf-8", "replace").split("\n")
                    if "READY=1" in said and life.ready_s is None:
                        heard = now
                        with self._changed:
                            life.ready_s = now - life.began_s
                            self._changed.notify_all()
                    if "WATCHDOG=1" in said:
                        heard = now
                if handle in ready:
                    process.wait(10)
                    break
                if now >= sample_at:
                    sample_at = now + SAMPLE_S
                    with contextlib.suppress(psutil.Error):
                        life.samples.append((now, look.memory_info().rss, look.num_fds()))
                if now - heard > (WATCHDOG_S if life.ready_s is not None else START_S):
                    self._abort(process, life)
                    heard = now
        finally:
            os.close(handle)
            life.ended_s = time.monotonic()

    def _abort(self, process: subprocess.Popen[bytes], life: Life) -> None:
        with self._changed:
            never = "watchdog" if life.ready_s is not None else "never ready"
            life.cause = never
            if self._frozen:
                self._asked = never
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ABORT_S)
            return
        process.kill()
