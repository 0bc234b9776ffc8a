"""Builds engines while others serve: one after the other, in the background, each slot once.

Updates come first: while one is being proven, `held` keeps everything here from running, so that
nothing takes the processor from it, and nothing takes over a slot that it is about to change.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from agent import stallpoint
from agent.buildprocess import COMMAND, BuildProcess
from agent.modelslot import PostponedError
from agent.progress import Activity
from agent.threads import ThreadGroup
from engines.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.buildprocess import Built
    from agent.modelslot import ModelSlot
    from agent.slotports import Pipelines
    from engines.backend import Progress

log = logging.getLogger(__name__)

HOLD_S = 90.0
"""What is being done is ended within this; longer than an old engine may take to end."""

BREATH_S = 5.0
"""After it was held, the builder waits: the stages of an update follow each other."""


class Builder:
    """A thread that improves slots which have a model loaded.

    Args:
        slots: by name.
        pipelines: where built engines take over.
        command: the program that builds one engine.

    Attributes:
        activity: what its thread does at present; a build that runs has its own deadline first.
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
        self.activity = Activity()
        self._group = ThreadGroup()
        self._changed = threading.Condition()
        self._waiting: deque[str] = deque()
        self._seen: set[str] = set()
        self._closing = False
        self._holders = 0
        self._rests_until = 0.0
        self._busy = False
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

    def again(self, slot: str) -> None:
        """Have a slot improved that has another model now; from any thread."""
        with self._changed:
            self._seen.discard(slot)
        self.want(slot)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everything from running; a build that runs is broken off, and begun again later.

        Raises:
            BuildError: what is being done does not end.
        """
        with self._changed:
            self._holders += 1
            process = self._process
        try:
            if process is not None:
                process.cancel()
            with self._changed:
                if not self._changed.wait_for(lambda: not self._busy, HOLD_S):
                    raise BuildError(
                        f"an engine that takes over has not ended within {HOLD_S:g} s; "
                        "restart the agent"
                    )
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._rests_until = time.monotonic() + BREATH_S
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
        while (slot := self._next()) is not None:
            with self.activity:
                stallpoint.hit("build")
                done = self._slots[slot].improve(self._pipelines, self._build)
            with self._changed:
                self._busy = False
                if not done:
                    self._waiting.appendleft(slot)
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Wait for a slot to improve; None at the end."""
        with self._changed:
            while not self._closing:
                rest_s = self._rests_until - time.monotonic()
                if self._waiting and not self._holders and rest_s <= 0:
                    self._busy = True
                    return self._waiting.popleft()
                resting = bool(self._waiting) and not self._holders
                self._changed.wait(rest_s if resting else None)
            return None

    def _build(
        self, request: Mapping[str, object], timeout_s: float, tell: Callable[[Progress], None]
    ) -> Built:
        process = BuildProcess(request, timeout_s, self._command)
        with self._changed:
            if self._closing:
                raise BuildError("the agent is stopping")
            if self._holders:
                raise PostponedError("an update is being proven")
            self._process = process
        log.info("model %s: its engine is built in the background", request["slot"])
        self.activity.mark(timeout_s)
        try:
            return process.run(tell)
        except BuildError as error:
            if self._holders and not self._closing:
                raise PostponedError("an update is being proven") from error
            raise
        finally:
            self.activity.mark()
            with self._changed:
                self._process = None
