"""Builds engines while others serve: one after the other, in the background, each slot once."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from agent.buildprocess import COMMAND, BuildProcess
from agent.threads import ThreadGroup
from engines.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.buildprocess import Built
    from agent.modelslot import ModelSlot, Pipelines
    from engines.backend import Progress

log = logging.getLogger(__name__)


class Builder:
    """A thread that improves slots which have a model loaded.

    Args:
        slots: by name.
        pipelines: where built engines take over.
        command: the program that builds one engine.
    """

    def __init__(
        self,
        slots: Mapping[str, ModelSlot],
        pipelines: Pipelines,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._slots = slots
        self._pipelines = pipelines
        self._command = command
        self._group = ThreadGroup()
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._seen: set[str] = set()
        self._closing = False
        self._process: BuildProcess | None = None

    def start(self) -> None:
        """Begin."""
        self._group.start("builder", self._run)

    def want(self, slot: str) -> None:
        """Have a slot improved, if that was not tried before; from any thread."""
        with self._changed:
            if slot not in self._seen:
                self._seen.add(slot)
                self._waiting.append(slot)
                self._changed.notify_all()

    def cancel(self) -> None:
        """Begin nothing more, and end the build that runs; returns at once."""
        with self._changed:
            self._closing = True
            process = self._process
            self._changed.notify_all()
        for slot in self._slots.values():
            slot.stop()
        if process is not None:
            process.cancel()

    def close(self, timeout_s: float) -> bool:
        """Cancel, and wait.

        Returns:
            False if something is still being done after `timeout_s`.
        """
        self.cancel()
        return self._group.wait(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                slot = self._waiting.popleft()
            self._slots[slot].improve(self._pipelines, self._build)

    def _build(
        self, request: Mapping[str, object], timeout_s: float, tell: Callable[[Progress], None]
    ) -> Built:
        process = BuildProcess(request, timeout_s, self._command)
        with self._changed:
            if self._closing:
                raise BuildError("the agent is stopping")
            self._process = process
        log.info("model %s: its engine is built in the background", request["slot"])
        try:
            return process.run(tell)
        finally:
            with self._changed:
                self._process = None
