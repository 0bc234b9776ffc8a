"""CUDA graphs, which pycuda does not offer: six calls of the driver, and two that name errors.

The library is the one that pycuda has loaded already; the stream is given by its handle.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARY = "libcuda.so.1"

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other workers do meanwhile does not spoil a capture."""

_HANDLE = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, ctypes.POINTER(_HANDLE)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_HANDLE), _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}
"""As in cuda.h of CUDA 11.4 and newer."""


@functools.cache
def _function(name: str) -> Any:
    try:
        function = getattr(ctypes.CDLL(LIBRARY), name)
    except (OSError, AttributeError) as error:
        raise InferenceError(
            f"CUDA graphs need {name} of CUDA 11.4: {error}; set tensorrt.cuda_graphs: false"
        ) from error
    function.argtypes = _SIGNATURES[name]
    return function


def _call(name: str, *args: Any) -> None:
    code = _function(name)(*args)
    if code:
        text = ctypes.c_char_p()
        _function("cuGetErrorString")(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise InferenceError(f"CUDA: {name} failed: {reason} ({code})")


class DriverGraph:
    """An executable graph; see `engines.trt.cuda.Graph`.

    Args:
        handle: the driver's CUgraphExec, which belongs to this object from now on.
    """

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def launch(self, stream: Any) -> None:
        """See `engines.trt.cuda.Graph`."""
        _call("cuGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """See `engines.trt.cuda.Graph`."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            _call("cuGraphExecDestroy", handle)


def capture(stream: int, work: Callable[[], None]) -> DriverGraph:
    """Record what `work` enqueues; the context must be pushed.

    Args:
        stream: handle of the stream.
        work: enqueues on that stream, and neither allocates nor waits.

    Raises:
        InferenceError: something in it cannot be captured. The stream is usable again.
    """
    _call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
    graph = _HANDLE()
    try:
        work()
    except BaseException:
        # The stream must not stay in capture. That the capture is spoiled is known already.
        _function("cuStreamEndCapture")(stream, ctypes.byref(graph))
        if graph.value:
            _function("cuGraphDestroy")(graph)
        raise
    _call("cuStreamEndCapture", stream, ctypes.byref(graph))
    try:
        made = _HANDLE()
        _call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, 0)
    finally:
        _call("cuGraphDestroy", graph)
    # A handle is never null where the call succeeded.
    return DriverGraph(made.value or 0)
