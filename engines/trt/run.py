"""Runs a TensorRT plan: one runtime and engine a model, one context and buffer set a worker.

What belongs to a context is made once and reused for every inference: making an execution context
each time grows memory without end (TensorRT#582). Everything is freed in one order, contexts before
their engine, engine before its runtime (TensorRT#3659), and none of it is left to the garbage
collector.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import TensorSpec
from engines.errors import InferenceError
from engines.trt import inspect
from engines.trt.kernel import FrameKernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engines.backend import Options
    from engines.model import ModelInfo
    from engines.trt.api import IoTensor, TrtApi
    from engines.trt.cuda import CudaPort, DeviceMemory, Graph, HostMemory
    from engines.trt.kernel import FrameWriter

log = logging.getLogger(__name__)


def load(api: TrtApi, cuda: CudaPort, plan: bytes, info: ModelInfo, options: Options) -> TrtEngine:
    """Load a plan.

    Args:
        api: TensorRT.
        cuda: the GPU; the engine uses it, and does not close it.
        plan: what TensorRT built on this device.
        info: of the model.
        options: how it is run.

    Raises:
        PlanError: the plan is damaged, or of another version or device.
        BackendError: TensorRT refuses it, memory is short, or a tensor is of a type NumPy has not.
    """
    with cuda.pushed():
        runtime = api.started("Runtime")
        engine = api.deserialize(runtime, plan)
        tensors = api.io_tensors(engine)
        facts = inspect.read(api.inspect(engine))
        kernel = None
        if options.tensorrt.preprocess == "cuda":
            kernel = FrameKernel(cuda, info, tensors[0].dtype)
    return TrtEngine(api, cuda, runtime, engine, tensors, facts, options, kernel)


class TrtEngine:
    """A loaded plan; see `engines.base.Engine`.

    Attributes:
        facts: what its layers are.
        graph_failures: contexts whose work could not be captured and is enqueued each time.
    """

    backend = "tensorrt"

    def __init__(
        self,
        api: TrtApi,
        cuda: CudaPort,
        runtime: Any,
        engine: Any,
        tensors: tuple[IoTensor, ...],
        facts: inspect.EngineFacts,
        options: Options,
        kernel: FrameKernel | None,
    ) -> None:
        self.facts = facts
        self.precision = facts.precision
        self.graph_failures = 0
        run = options.run
        self.lanes = run.threads if run.arrangement == "throughput" else 1
        self.inputs = tuple(_spec(t) for t in tensors if t.is_input)
        self.outputs = tuple(_spec(t) for t in tensors if not t.is_input)
        self._api = api
        self._cuda = cuda
        self._runtime = runtime
        self._engine = engine
        self._tensors = tensors
        self._options = options
        self._kernel = kernel
        self._lock = threading.Lock()
        self._contexts: list[TrtContext] = []

    @property
    def device_bytes(self) -> int:
        """GPU memory that each context takes for activations."""
        return self._api.device_memory_bytes(self._engine)

    def create_context(self, batch: int, *, graphs: bool = True) -> TrtContext:
        """See `engines.base.Engine`; without `graphs`, work is enqueued call by call."""
        if self._engine is None:
            raise InferenceError("the engine is closed; load the plan again")
        for tensor in self._tensors:
            if tensor.is_input:
                self._check(tensor, batch)
        with self._cuda.pushed(), contextlib.ExitStack() as undo:
            if self._kernel is None:
                context = TrtContext(self, self._cuda, batch)
            else:
                context = TrtFrameContext(self, self._cuda, batch, self._kernel)
            undo.callback(context.close)
            wanted = graphs and self._options.tensorrt.cuda_graphs
            context.open(self._api, self._engine, self._tensors, graphs=wanted)
            undo.pop_all()
        with self._lock:
            self._contexts.append(context)
        return context

    def forget(self, context: TrtContext) -> None:
        """A context was closed."""
        with self._lock:
            if context in self._contexts:
                self._contexts.remove(context)

    def count_graph_failure(self) -> int:
        """Note a context without a graph; returns how many there were."""
        with self._lock:
            self.graph_failures += 1
            return self.graph_failures

    def close(self) -> None:
        """See `engines.base.Engine`; contexts that are still open are closed first."""
        with self._lock:
            left = list(self._contexts)
        if left:
            log.error("%d contexts were open when their engine was closed", len(left))
        for context in left:
            context.close()
        with self._cuda.pushed():
            if self._kernel is not None:
                self._kernel.close()
            # The bindings free what they hold when its last name goes: engine, then runtime.
            self._kernel = None
            self._engine = None
            self._runtime = None

    def _check(self, tensor: IoTensor, batch: int) -> None:
        low, _, high = self._api.profile_shapes(self._engine, tensor.name)
        if not low[0] <= batch <= high[0]:
            raise InferenceError(
                f"batch {batch} is outside {low[0]}..{high[0]}, which the engine was built for; "
                f"set models.<slot>.batch to {batch} and build it again"
            )


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
        with self._cuda.pushed():
            if self._graph is not None:
                self._graph.close()
            self._graph = None
            self._resources.close()
            self._context = None
        self.inputs = {}
        self._outputs = {}
        self._owner.forget(self)

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
        self._frames: FrameWriter = self._kept(self._kernel.writer(memory, shape))
        # Nobody writes it from the host; it stands for the input's name and type.
        self.inputs[tensor.name] = np.empty((0, *shape[1:]), tensor.dtype)
        self._api.set_address(self._context, tensor.name, memory.address)


def _spec(tensor: IoTensor) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(n if n >= 0 else None for n in tensor.shape), tensor.dtype)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize
