"""`engines.trt.cuda.CudaPort` on the host's memory, in Python alone.

For tests of what uses the port; the port itself is tested with the real pycuda.
"""

from __future__ import annotations

import contextlib

import numpy as np

from engines.errors import InferenceError
from engines.trt.board import Board

ORIN_NANO = Board("Fake Orin", "8.7", 8, True, 8 << 30, "12.6")
DESKTOP = Board("Fake card", "8.6", 40, False, 24 << 30, "13.0")


class Memory:
    def __init__(self, nbytes, port):
        self.array = np.zeros(nbytes, np.uint8)
        self.nbytes = nbytes
        self.address = self.array.ctypes.data
        self._port = port
        port.live += 1

    def close(self):
        if self._port is not None:
            self._port.live -= 1
        self._port = None


class Stream:
    handle = 1

    def __init__(self, port):
        self._port = port
        port.live += 1

    def synchronize(self):
        """Everything has run when it was enqueued."""

    def close(self):
        if self._port is not None:
            self._port.live -= 1
        self._port = None


class HostPort:
    """Counts in `live` what is not closed."""

    def __init__(self, board=DESKTOP, free_bytes=4 << 30):
        self.board = board
        self.live = 0
        self._free_bytes = free_bytes
        self._pushes = 0

    @contextlib.contextmanager
    def pushed(self):
        self._pushes += 1
        try:
            yield
        finally:
            self._pushes -= 1

    def _need_context(self):
        if not self._pushes:
            raise InferenceError("invalid device context")

    def memory(self):
        self._need_context()
        return self._free_bytes, self.board.memory_bytes

    def alloc(self, nbytes):
        self._need_context()
        return Memory(nbytes, self)

    def pinned(self, nbytes, *, mapped=False):
        self._need_context()
        memory = Memory(nbytes, self)
        if not mapped:
            memory.address = 0
        return memory

    def stream(self):
        self._need_context()
        return Stream(self)

    def copy_in(self, target, source, nbytes, stream):
        target.array[:nbytes] = source.array[:nbytes]

    def copy_out(self, target, source, nbytes, stream):
        target.array[:nbytes] = source.array[:nbytes]

    def capture(self, stream, work):
        raise InferenceError("this port cannot capture")

    def close(self):
        """Nothing is held."""
