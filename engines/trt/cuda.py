"""What is asked of CUDA, whichever library answers: a port of about a dozen calls.

One primary context for the process. A thread that calls the port does so inside `pushed()`; the
objects it is given are freed by `close`, inside `pushed()` of any thread, and by nothing else: what
the garbage collector frees in a thread without a context leaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from engines.trt.board import Board


class DeviceMemory(Protocol):
    """Memory of the GPU."""

    @property
    def address(self) -> int:
        """Where it begins."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""

    def close(self) -> None:
        """Free it; may be called twice."""


class HostMemory(Protocol):
    """Page-locked memory of the host, which the GPU copies from and to without help."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """Its bytes, uint8 [n]."""

    @property
    def address(self) -> int:
        """Where the GPU sees it without a copy, if it was mapped; else 0."""

    def close(self) -> None:
        """Free it; the array must not be used any more. May be called twice."""


class Stream(Protocol):
    """Work that runs in order; never the default stream, which would wait for all others."""

    @property
    def handle(self) -> int:
        """As the driver and TensorRT know it."""

    def synchronize(self) -> None:
        """Wait until everything enqueued has run.

        Raises:
            InferenceError: something that was enqueued failed.
        """

    def close(self) -> None:
        """Free it; may be called twice."""


class Event(Protocol):
    """A moment in a stream."""

    def record(self, stream: Stream) -> None:
        """Mark what has been enqueued so far."""

    def synchronize(self) -> None:
        """Wait until the mark is reached."""

    def elapsed_ms(self, since: Event) -> float:
        """Milliseconds from another mark to this one; both must be reached."""

    def close(self) -> None:
        """Free it; may be called twice."""


class Graph(Protocol):
    """Enqueued work that was captured and is replayed by one call."""

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it.

        Raises:
            InferenceError: the driver refuses it.
        """

    def close(self) -> None:
        """Free it; may be called twice."""


class Kernel(Protocol):
    """A function on the GPU."""

    def launch(
        self,
        stream: Stream,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[np.generic],
    ) -> None:
        """Enqueue it; `args` are NumPy scalars of the function's own types.

        Raises:
            InferenceError: the driver refuses it.
        """


class CudaPort(Protocol):
    """The driver, for one GPU. Every call may raise InferenceError with the driver's reason."""

    @property
    def board(self) -> Board:
        """Facts of the GPU."""

    def pushed(self) -> AbstractContextManager[None]:
        """Make the primary context current in this thread, and leave the thread as it was."""

    def memory(self) -> tuple[int, int]:
        """Bytes of GPU memory that are free, and all."""

    def alloc(self, nbytes: int) -> DeviceMemory:
        """Take memory of the GPU."""

    def pinned(self, nbytes: int, *, mapped: bool = False) -> HostMemory:
        """Take page-locked memory of the host; `mapped` lets the GPU read it where it lies."""

    def stream(self) -> Stream:
        """Make a stream."""

    def event(self) -> Event:
        """Make an event that can be timed."""

    def copy_in(
        self, target: DeviceMemory, source: HostMemory, nbytes: int, stream: Stream
    ) -> None:
        """Enqueue a copy from the host to the GPU."""

    def copy_out(
        self, target: HostMemory, source: DeviceMemory, nbytes: int, stream: Stream
    ) -> None:
        """Enqueue a copy from the GPU to the host."""

    def capture(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what `work` enqueues on the stream, instead of running it.

        Raises:
            InferenceError: something in it cannot be captured; the stream is usable again.
        """

    def kernel(self, image: bytes, name: str) -> Kernel:
        """Load a compiled module (cubin or PTX) and find a function in it; kept until `close`."""

    def close(self) -> None:
        """Give the primary context back, after everything else was closed; may be called twice."""
