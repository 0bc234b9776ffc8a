"""The CUDA port by pycuda, its only importer.

pycuda's objects free what they hold when their last name goes, but only in a thread that has their
context; elsewhere they leak and warn (inducer/pycuda#242). So each is held by one object here, and
goes when that is closed.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from pycuda import driver

from engines.errors import InferenceError
from engines.trt.board import Board
from engines.trt.cudagraph import LIBRARY, DriverGraph
from engines.trt.cudagraph import capture as capture_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from numpy.typing import NDArray

    from engines.trt.cuda import CudaPort

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one."""

_opening = threading.Lock()


@functools.cache
def _opened(ordinal: int) -> PycudaPort:
    port = PycudaPort(ordinal)
    # Before the interpreter takes modules apart, when destructors would find no driver.
    atexit.register(port.close)
    return port


def open_port(ordinal: int = 0) -> CudaPort:
    """The port to a GPU, the same for the whole process.

    Args:
        ordinal: which GPU, as CUDA counts them.

    Raises:
        InferenceError: there is none, or the driver does not start.
    """
    with _opening:
        return _opened(ordinal)


@contextmanager
def _errors() -> Iterator[None]:
    """Map the driver's errors to ours."""
    try:
        yield
    except driver.MemoryError as error:
        raise InferenceError(
            f"CUDA: {error}; free GPU memory, or run fewer workers or smaller batches"
        ) from error
    except driver.Error as error:
        raise InferenceError(f"CUDA: {error}") from error


class PycudaDeviceMemory:
    """See `engines.trt.cuda.DeviceMemory`."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._allocation = driver.mem_alloc(nbytes)
        self.address = int(self._allocation)

    def close(self) -> None:
        """See `engines.trt.cuda.DeviceMemory`."""
        if self._allocation is not None:
            with _errors():
                self._allocation.free()
            self._allocation = None


class PycudaHostMemory:
    """See `engines.trt.cuda.HostMemory`."""

    def __init__(self, nbytes: int, *, mapped: bool) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        self.array: NDArray[np.uint8] = driver.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
        self._allocation: Any = self.array.base
        self.address = int(self._allocation.get_device_pointer()) if mapped else 0

    def close(self) -> None:
        """See `engines.trt.cuda.HostMemory`."""
        if self._allocation is not None:
            self.array = np.empty(0, np.uint8)
            with _errors():
                self._allocation.free()
            self._allocation = None


class PycudaStream:
    """See `engines.trt.cuda.Stream`."""

    def __init__(self) -> None:
        self.pycuda = driver.Stream(NON_BLOCKING)
        self.handle = int(self.pycuda.handle)

    def synchronize(self) -> None:
        """See `engines.trt.cuda.Stream`."""
        with _errors():
            self.pycuda.synchronize()

    def close(self) -> None:
        """See `engines.trt.cuda.Stream`."""
        self.pycuda = None


class PycudaEvent:
    """See `engines.trt.cuda.Event`."""

    def __init__(self) -> None:
        self._event = driver.Event()

    def record(self, stream: Any) -> None:
        """See `engines.trt.cuda.Event`."""
        with _errors():
            self._event.record(stream.pycuda)

    def synchronize(self) -> None:
        """See `engines.trt.cuda.Event`."""
        with _errors():
            self._event.synchronize()

    def elapsed_ms(self, since: Any) -> float:
        """See `engines.trt.cuda.Event`."""
        with _errors():
            return float(self._event.time_since(since._event))  # noqa: SLF001 - its own class

    def close(self) -> None:
        """See `engines.trt.cuda.Event`."""
        self._event = None


class PycudaKernel:
    """See `engines.trt.cuda.Kernel`."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def launch(
        self,
        stream: Any,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[np.generic],
    ) -> None:
        """See `engines.trt.cuda.Kernel`."""
        with _errors():
            self._function(*args, grid=grid, block=block, stream=stream.pycuda)

    def close(self) -> None:
        """Let go of the module, whoever still holds this object."""
        self._function = None


class _Pushed:
    """Makes a context current in the thread that enters; keeps nothing, so one serves all."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._context.push()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        driver.Context.pop()


class PycudaPort:
    """See `engines.trt.cuda.CudaPort`.

    Args:
        ordinal: which GPU, as CUDA counts them.

    Attributes:
        board: facts of the GPU.
    """

    def __init__(self, ordinal: int) -> None:
        with _errors():
            driver.init()
            device = driver.Device(ordinal)
            major, minor = device.compute_capability()
            attribute = driver.device_attribute
            version = driver.get_driver_version()
            self.board = Board(
                name=device.name(),
                compute_capability=f"{major}.{minor}",
                multiprocessors=device.get_attribute(attribute.MULTIPROCESSOR_COUNT),
                integrated=bool(device.get_attribute(attribute.INTEGRATED)),
                memory_bytes=int(device.total_memory()),
                # 12060 stands for 12.6.
                driver=f"{version // 1000}.{version % 1000 // 10}",
            )
            # The one that TensorRT and all of the runtime API use; not a context of our own.
            self._context: Any = device.retain_primary_context()
        self._pushed = _Pushed(self._context)
        self._lock = threading.Lock()
        self._kernels: dict[tuple[str, str], PycudaKernel] = {}

    def pushed(self) -> AbstractContextManager[None]:
        """See `engines.trt.cuda.CudaPort`."""
        return self._pushed

    def memory(self) -> tuple[int, int]:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            free, total = driver.mem_get_info()
        return int(free), int(total)

    def alloc(self, nbytes: int) -> PycudaDeviceMemory:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            return PycudaDeviceMemory(nbytes)

    def pinned(self, nbytes: int, *, mapped: bool = False) -> PycudaHostMemory:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            return PycudaHostMemory(nbytes, mapped=mapped)

    def stream(self) -> PycudaStream:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            return PycudaStream()

    def event(self) -> PycudaEvent:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            return PycudaEvent()

    def copy_in(self, target: Any, source: Any, nbytes: int, stream: Any) -> None:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            driver.memcpy_htod_async(target.address, source.array[:nbytes], stream.pycuda)

    def copy_out(self, target: Any, source: Any, nbytes: int, stream: Any) -> None:
        """See `engines.trt.cuda.CudaPort`."""
        with _errors():
            driver.memcpy_dtoh_async(target.array[:nbytes], source.address, stream.pycuda)

    def capture(self, stream: Any, work: Callable[[], None]) -> DriverGraph:
        """See `engines.trt.cuda.CudaPort`."""
        return capture_graph(stream.handle, work)

    def kernel(self, image: bytes, name: str) -> PycudaKernel:
        """See `engines.trt.cuda.CudaPort`; the same function is loaded once."""
        key = (hashlib.sha256(image).hexdigest(), name)
        with self._lock, _errors():
            if key not in self._kernels:
                module = driver.module_from_buffer(image)
                # The function keeps its module.
                self._kernels[key] = PycudaKernel(module.get_function(name))
            return self._kernels[key]

    def close(self) -> None:
        """See `engines.trt.cuda.CudaPort`."""
        if self._context is None:
            return
        with self._pushed:
            while self._kernels:
                self._kernels.popitem()[1].close()
        context, self._context = self._context, None
        _opened.cache_clear()
        # pycuda gives a primary context back only where it is current, forgets then that it is, and
        # leaves it on the driver's own stack.
        context.push()
        context.detach()
        ctypes.CDLL(LIBRARY).cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
