"""A camera whose every picture, pause and failure a test decides."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

PICTURE = np.zeros((8, 12, 3), np.uint8)


class ScriptedDevice:
    """Implements `agent.capture.base.Device`.

    `script` holds pictures to give, errors to raise, or None for the end; `read` waits for the
    next entry, for ever if the test gives none: a driver that hangs.
    """

    fps = 0.0
    codec = "fake"

    def __init__(self, *script: object) -> None:
        self.script: queue.Queue[object] = queue.Queue()
        self.closed = False
        for entry in script:
            self.script.put(entry)

    def read(self) -> NDArray[Any] | None:
        entry = self.script.get()
        if isinstance(entry, Exception):
            raise entry
        return entry  # type: ignore[return-value]

    def close(self) -> None:
        self.closed = True
