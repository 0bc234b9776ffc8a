"""The log of a run: one line for each thing that was asserted, with its figure."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("agent", "engines", "fleet", "systemd", "scripts", "tests/system", "setup.py",
         "pyproject.toml")  # fmt: skip
"""Where a change that is not committed makes this another program than the commit."""


class Record:
    """Writes the log as it goes.

    Args:
        say: shows a line to whoever waits.
        file: where the log lies, begun anew.
    """

    def __init__(self, say: Callable[[str], None], file: Path | None) -> None:
        self._say = say
        self._file = file
        self._held = self._left_out = 0
        self._began = time.monotonic()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")

    def line(self, text: str = "") -> None:
        """A line of its own."""
        self._say(text)
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(f"{text}\n")

    def holds(self, what: str, outcome: bool, figure: object = "") -> None:
        """Assert something, and say so."""
        shown = f"{what}: {figure}" if figure != "" else what
        self.line(f"  {'ok  ' if outcome else 'FAIL'}  {shown}")
        self._held += outcome
        assert outcome, shown

    def left_out(self, what: str, why: str) -> None:
        """Say what cannot be asserted here."""
        self.line(f"  left out  {what}: {why}")
        self._left_out += 1

    def figure(self, what: str, figure: object) -> None:
        """Say what was measured, where nothing is asked of it."""
        self.line(f"        {what}: {figure}")

    def head(self) -> None:
        """Say what is tested, and where."""
        loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
        self.line("Vigia as a service on a real systemd: scripts/test-system")
        self.line(f"commit {commit()}")
        self.line(
            f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; Linux {platform.release()}, "
            f"{os.cpu_count()} processors, load before it {loads}; Python {sys.version.split()[0]}"
        )

    def foot(self, failed: int) -> None:
        """Say how it ended."""
        took_s = time.monotonic() - self._began
        self.line()
        self.line(
            f"{self._held} assertions held, {self._left_out} left out, {failed} tests failed; "
            f"{took_s:.0f} s ({int(took_s) // 60} min {int(took_s) % 60} s) in all, "
            f"load after it {os.getloadavg()[0]:.1f}"
        )


def commit() -> str:
    """The commit, and what differs from it."""
    changed = _git("status", "--porcelain", "--", *PARTS)
    state = "clean" if not changed else f"with {len(changed.splitlines())} changed files"
    return f"{_git('rev-parse', 'HEAD')} ({state})"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or ("" if done.returncode == 0 else "unknown")
