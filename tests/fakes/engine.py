"""An engine whose outputs, speed and failures a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import TensorSpec

Infer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class FakeContext:
    """Implements `engines.base.Context`."""

    def __init__(self, engine: FakeEngine, batch: int) -> None:
        self._engine = engine
        shape = (batch, *(n or 0 for n in engine.inputs[0].shape[1:]))
        self.inputs = {engine.inputs[0].name: np.zeros(shape, np.uint8)}
        with engine.lock:
            assert not engine.closed, "a context of a closed engine"
            engine.open_contexts += 1
        self._closed = False

    def infer(self) -> Mapping[str, NDArray[Any]]:
        (images,) = self.inputs.values()
        with self._engine.lock:
            self._engine.running += 1
            self._engine.most_running = max(self._engine.most_running, self._engine.running)
            self._engine.batches.append(len(images))
        try:
            return {"output0": self._engine.function(images)}
        finally:
            with self._engine.lock:
                self._engine.running -= 1

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._engine.lock:
                self._engine.open_contexts -= 1


class FakeEngine:
    """Implements `engines.base.Engine`; `function` maps uint8 images to the output tensor."""

    backend = "fake"
    precision = "fp32"

    def __init__(self, function: Infer, size: int = 32, lanes: int = 1, boxes: int = 8) -> None:
        self.function = function
        self.lanes = lanes
        self.inputs = (TensorSpec("frames", (None, size, size, 3), np.dtype(np.uint8)),)
        self.outputs = (TensorSpec("output0", (None, 6, boxes), np.dtype(np.float32)),)
        self.lock = threading.Lock()
        self.running = self.most_running = self.open_contexts = 0
        self.batches: list[int] = []
        self.closed = False

    def create_context(self, batch: int) -> FakeContext:
        return FakeContext(self, batch)

    def close(self) -> None:
        with self.lock:
            assert self.open_contexts == 0, "closed while contexts are open"
            assert not self.closed, "closed twice"
            self.closed = True
