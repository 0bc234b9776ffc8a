"""Threads with an owner: a crash is an error in the owner, never a thread that silently died."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadGroup:
    """Runs functions in threads of their own and waits for them together.

    The threads are daemon threads: a native call that hangs for ever cannot keep the process from
    ending once the owner has stopped waiting.

    Args:
        on_error: called once, in the failing thread, so that the owner can stop the others.
    """

    def __init__(self, on_error: Callable[[], None] = lambda: None) -> None:
        self._on_error = on_error
        self._changed = threading.Condition()
        self._alive = 0
        self._error: BaseException | None = None

    def start(self, name: str, target: Callable[..., object], *args: Any) -> None:
        """Run `target(*args)` in a thread called `name`."""
        with self._changed:
            self._alive += 1
        thread = threading.Thread(target=self._run, args=(target, args), name=name, daemon=True)
        thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all threads have ended.

        Returns:
            False if some still run after `timeout_s`.

        Raises:
            BaseException: the first error that a thread ended with, once all have ended or the
                time is over.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while self._alive:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            if self._error is not None:
                raise self._error
            return self._alive == 0

    def _run(self, target: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            target(*args)
        except BaseException as error:  # noqa: BLE001 - carried to whoever waits
            with self._changed:
                first, self._error = self._error is None, self._error or error
            if first:
                self._on_error()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()


def leave(code: int, prefix: str) -> None:
    """End the process at once where threads are left in native code; otherwise return.

    An ordinary end runs the destructors of native libraries under the feet of such threads, which
    aborts the process: a service manager would take a clean stop for a crash. Only for the last
    line of a command that has closed everything.

    Args:
        code: exit code of the process.
        prefix: how the names of threads begin that may be left.
    """
    if any(thread.name.startswith(prefix) for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
