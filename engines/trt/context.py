"""One worker's way to run a TensorRT engine: stream, buffers and execution context, made once.

What belongs to a context is reused for every inference: making an execution context each time grows
memory without end (TensorRT#582).
"""

from __future__ import annotations

import contextlib
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.trt.api import IoTensor, TrtApi
    from engines.trt.cuda import CudaPort, DeviceMemory, Graph, HostMemory
    from engines.trt.kernel import FrameKernel, FrameWriter
    from engines.trt.run import TrtEngine

log = logging.getLogger(__name__)


class TrtContext:
    """One worker's way to run an engine; see `engines.base.Context`.

    Args:
        engine: its owner.
        cuda: the GPU.
        batch: images of one inference.
    """

    def __init__(self, engine: TrtEngine, cuda: CudaPort, batch: int) -> None:
        self.inputs: dict[str, NDArray[Any]] = {}
        self._owner = engine
        self._cuda = cuda
        self._batch = batch
        self._outputs: dict[str, NDArray[Any]] = {}
        self._copies_in: list[tuple[DeviceMemory, HostMemory, int]] = []
        self._copies_out: list[tuple[HostMemory, DeviceMemory, int]] = []
        self._resources = contextlib.ExitStack()
        self._stream: Any = None
        self._graph: Graph | None = None
        self._closed = False

    def open(
        self,
        api: TrtApi,
        engine: Any,
        tensors: tuple[IoTensor, ...],
        *,
        graphs: bool,
    ) -> None:
        """Take all buffers, and capture the work if that is wanted; the GPU must be pushed.

        Raises:
            InferenceError: memory is short, or an output's size depends on the data.
        """
        self._api = api
        self._stream = self._kept(self._cuda.stream())
        self._context = api.create_context(engine)
        for tensor in (t for t in tensors if t.is_input):
            shape = (self._batch, *tensor.shape[1:])
            api.set_input_shape(self._context, tensor.name, shape)
            self._take_input(tensor, shape)
        missing = api.missing_shapes(self._context)
        if missing:
            raise InferenceError(f"the engine's inputs {missing} have no shape; build it again")
        for tensor in (t for t in tensors if not t.is_input):
            self._take_output(tensor, api.output_shape(self._context, tensor.name))
        if graphs:
            self._capture()

    def infer(self) -> Mapping[str, NDArray[Any]]:
        """Run the model on what `inputs` holds; see `engines.base.Context`."""
        with self._cuda.pushed():
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._enqueue()
            self._stream.synchronize()
        return self._outputs

    def infer_timed(self) -> tuple[float, float, float]:
        """Run once, with events between the stages; milliseconds of copying in, computing, out."""
        with self._cuda.pushed(), contextlib.ExitStack() as stack:
            marks = [self._cuda.event() for _ in range(4)]
            for mark in marks:
                stack.callback(mark.close)
            marks[0].record(self._stream)
            self._enqueue_in()
            marks[1].record(self._stream)
            self._api.enqueue(self._context, self._stream.handle)
            marks[2].record(self._stream)
            self._enqueue_out()
            marks[3].record(self._stream)
            self._stream.synchronize()
            first, second, third = (b.elapsed_ms(a) for a, b in pairwise(marks))
            return first, second, third

    def watch(self, profiler: Any) -> None:
        """Have layers timed; `report` gives their times after each run."""
        self._context.profiler = profiler
        # Else every enqueue would wait for its own end, in the middle of the stream.
        self._context.enqueue_emits_profile = False

    def report(self) -> None:
        """Hand the last run's times to the profiler.

        Raises:
            InferenceError: TensorRT has none.
        """
        with self._cuda.pushed():
            self._api.checked(
                InferenceError, "has no layer times", self._context.report_to_profiler
            )

    def close(self) -> None:
        """Free everything, in the order that TensorRT needs; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._owner.forget(self)
        self.inputs = {}
        self._outputs = {}
        with self._cuda.pushed(), contextlib.ExitStack() as order:
            order.callback(self._drop_context)
            order.callback(self._resources.close)
            if self._graph is not None:
                order.callback(self._graph.close)
            if self._stream is not None:
                # What was enqueued before a failure still uses the buffers. If the GPU is lost,
                # nothing uses them any more.
                with contextlib.suppress(InferenceError):
                    self._stream.synchronize()
        self._graph = None

    def _drop_context(self) -> None:
        self._context = None

    def _take_input(self, tensor: IoTensor, shape: tuple[int, ...]) -> None:
        nbytes = _bytes(shape, tensor.dtype)
        # Where CPU and GPU share memory, the GPU reads the input where the CPU wrote it.
        host = self._kept(self._cuda.pinned(nbytes, mapped=self._cuda.board.integrated))
        self.inputs[tensor.name] = host.array[:nbytes].view(tensor.dtype).reshape(shape)
        self.inputs[tensor.name][...] = 0
        if host.address:
            self._api.set_address(self._context, tensor.name, host.address)
            return
        memory = self._kept(self._cuda.alloc(nbytes))
        self._copies_in.append((memory, host, nbytes))
        self._api.set_address(self._context, tensor.name, memory.address)

    def _take_output(self, tensor: IoTensor, shape: tuple[int, ...]) -> None:
        if any(size < 0 for size in shape):
            raise InferenceError(
                f"the size of output {tensor.name!r} depends on the picture (shape {list(shape)}); "
                "export the model with a fixed number of results"
            )
        nbytes = _bytes(shape, tensor.dtype)
        memory = self._kept(self._cuda.alloc(nbytes))
        host = self._kept(self._cuda.pinned(nbytes))
        self._outputs[tensor.name] = host.array[:nbytes].view(tensor.dtype).reshape(shape)
        self._copies_out.append((host, memory, nbytes))
        self._api.set_address(self._context, tensor.name, memory.address)

    def _enqueue(self) -> None:
        self._enqueue_in()
        self._api.enqueue(self._context, self._stream.handle)
        self._enqueue_out()

    def _enqueue_in(self) -> None:
        for target, source, nbytes in self._copies_in:
            self._cuda.copy_in(target, source, nbytes, self._stream)

    def _enqueue_out(self) -> None:
        for host, memory, nbytes in self._copies_out:
            self._cuda.copy_out(host, memory, nbytes, self._stream)

    def _capture(self) -> None:
        """Record one run; what cannot be recorded is enqueued call by call, and counted."""
        # The first run allocates, which a capture forbids (TensorRT#2603).
        self._enqueue()
        self._stream.synchronize()
        try:
            self._graph = self._cuda.capture(self._stream, self._enqueue)
        except InferenceError as error:
            if self._owner.count_graph_failure() == 1:
                log.warning("no CUDA graph for this engine, it runs without: %s", error)

    def _kept(self, resource: Any) -> Any:
        self._resources.callback(resource.close)
        return resource


class TrtFrameContext(TrtContext):
    """A context whose input is written by a kernel, from whole frames.

    Args:
        engine: its owner.
        cuda: the GPU.
        batch: images of one inference.
        kernel: what prepares frames.
    """

    def __init__(self, engine: TrtEngine, cuda: CudaPort, batch: int, kernel: FrameKernel) -> None:
        super().__init__(engine, cuda, batch)
        self._kernel = kernel

    def write_frame(
        self,
        index: int,
        pixels: NDArray[np.uint8],
        source: tuple[int, int, int, int],
        target: tuple[int, int, int, int],
    ) -> None:
        """Prepare a frame on the GPU; see `engines.base.FrameContext`."""
        with self._cuda.pushed():
            self._frames.write(self._stream, index, pixels, source, target)

    def _take_input(self, tensor: IoTensor, shape: tuple[int, ...]) -> None:
        memory = self._kept(self._cuda.alloc(_bytes(shape, tensor.dtype)))
        self._frames: FrameWriter = self._kept(self._kernel.writer(memory))
        for index in range(self._batch):
            self._frames.clear(self._stream, index)
        # Nobody writes it from the host; it stands for the input's name and type.
        self.inputs[tensor.name] = np.empty((0, *shape[1:]), tensor.dtype)
        self._api.set_address(self._context, tensor.name, memory.address)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize
