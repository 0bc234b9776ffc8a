"""A loaded TensorRT plan: one runtime and engine a model, a context for each worker.

Everything is freed in one order, contexts before their engine, engine before its runtime
(TensorRT#3659), and none of it is left to the garbage collector.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from engines.base import TensorSpec
from engines.errors import InferenceError
from engines.trt import inspect
from engines.trt.context import TrtContext, TrtFrameContext
from engines.trt.kernel import FrameKernel

if TYPE_CHECKING:
    from engines.backend import Options
    from engines.model import ModelInfo
    from engines.trt.api import IoTensor, TrtApi
    from engines.trt.cuda import CudaPort

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
        if options.tensorrt.dla_core is not None:
            runtime.DLA_core = options.tensorrt.dla_core
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


def _spec(tensor: IoTensor) -> TensorSpec:
    return TensorSpec(tensor.name, tuple(n if n >= 0 else None for n in tensor.shape), tensor.dtype)
