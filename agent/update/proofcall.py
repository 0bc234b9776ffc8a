"""One stage of proof while it runs: its process, and how it is ended from outside."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.buildprocess import HostFaultError
from agent.errors import GateError
from agent.update.ports import UpdateCancelled
from engines.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.buildprocess import BuildProcess, Built
    from engines.backend import Progress


class Call:
    """A stage that can be cancelled.

    Attributes:
        cancelled: set once it is to end.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._process: BuildProcess | None = None

    def cancel(self) -> None:
        """Have it end soon; from any thread."""
        with self._lock:
            self.cancelled.set()
            process = self._process
        if process is not None:
            process.cancel()

    def check(self) -> None:
        """Go on only if it was not cancelled.

        Raises:
            UpdateCancelled: it was.
        """
        if self.cancelled.is_set():
            raise UpdateCancelled

    def run(self, process: BuildProcess, tell: Callable[[Progress], None]) -> Built:
        """Run a process to its end.

        Raises:
            BuildError: what it was given is at fault: it failed, crashed, or took too long.
            GateError: the machine is at fault.
            UpdateCancelled: it was cancelled.
        """
        with self._lock:
            self._process = process
        try:
            self.check()
            return process.run(tell)
        except BuildError as error:
            self.check()
            if isinstance(error, HostFaultError):
                raise GateError(str(error)) from error
            raise
        finally:
            with self._lock:
                self._process = None
