"""Runtime, engine, context and inspector: ONNX Runtime on whatever memory the addresses name."""

from __future__ import annotations

import ctypes
import json
import time
import weakref

import numpy as np
import onnx
import onnxruntime as ort

from . import onnxgraph, planfile
from .building import say
from .callbacks import call
from .faults import fault

NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}

BY_DATA = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}
"""Operators whose results' sizes depend on the data."""

MISUSE: list[str] = []
"""What a GPU would answer with undefined behaviour; tests of closing look here."""


class Runtime:
    def __init__(self, logger):
        if fault("no-driver") is not None:
            say(logger, self._trt, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self._dla_core = 0

    @property
    def DLA_core(self):  # noqa: N802 - TensorRT's name
        return self._dla_core

    @DLA_core.setter
    def DLA_core(self, value):  # noqa: N802 - TensorRT's name
        self._dla_core = value

    def deserialize_cuda_engine(self, serialized_engine):
        error = ""
        try:
            header, model = planfile.read(bytes(serialized_engine))
        except ValueError as cause:
            error = str(cause)
        else:
            if header["version"] != self._trt.version:
                error = (
                    "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed. "
                    "Version tag does not match"
                )
            elif header["sm"] != (fault("sm") or "87"):
                error = "The engine plan file is generated on an incompatible device"
            elif fault("out-of-memory") == "load":
                error = "Cuda Runtime (out of memory)"
        if error:
            say(self._logger, self._trt, "ERROR", f"Error Code 1: {error}")
            return None
        return self._trt.module.ICudaEngine(header, model, self._logger)


class ICudaEngine:
    def __init__(self, header, model, logger):
        self._header, self._logger = header, logger
        graph = onnx.load_model_from_string(model)
        self._session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        types, shapes = onnxgraph.element_types(graph), onnxgraph.shapes(graph)
        self._tensors = {}
        for mode, tensors in (("INPUT", graph.graph.input), ("OUTPUT", graph.graph.output)):
            for tensor in tensors:
                kind = onnxgraph.KINDS[types[tensor.name]]
                members = self._trt.module.DataType.__members__
                # Releases without 64-bit tensors cast them on the way in and out.
                kind = kind if kind in members else "INT32"
                self._tensors[tensor.name] = (mode, kind, shapes[tensor.name])
        self._by_data = any(node.op_type in BY_DATA for node in graph.graph.node)
        self._sizes = {}
        self._contexts = weakref.WeakSet()

    def _output_sizes(self, shapes):
        feed = {}
        for name, shape in shapes:
            (wanted,) = (i.type for i in self._session.get_inputs() if i.name == name)
            dtype = np.int64 if "int64" in wanted else NUMPY[self._tensors[name][1]]
            feed[name] = np.zeros(shape, dtype)
        names = [o.name for o in self._session.get_outputs()]
        values = self._session.run(names, feed)
        return {name: value.shape for name, value in zip(names, values, strict=True)}

    def __del__(self):
        if any(context._alive for context in getattr(self, "_contexts", ())):
            MISUSE.append("an engine was destroyed before its contexts")

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    @property
    def num_layers(self):
        return len(self._header["layers"])

    @property
    def device_memory_size(self):
        return 1 << 20

    @property
    def device_memory_size_v2(self):
        return 1 << 20

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return self._trt.module.TensorIOMode[self._tensors[name][0]]

    def get_tensor_dtype(self, name):
        return self._trt.module.DataType[self._tensors[name][1]]

    def get_tensor_shape(self, name):
        return self._tensors[name][2]

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return [tuple(shape) for shape in self._header["profile"][name]]

    def create_engine_inspector(self):
        return self._trt.module.EngineInspector(self._header, self._tensors)

    def create_execution_context(self):
        if fault("out-of-memory") == "context":
            say(self._logger, self._trt, "ERROR", "Error Code 2: OutOfMemory (no further info)")
        if fault("out-of-memory") == "context" or fault("context-none") is not None:
            return None
        context = self._trt.module.IExecutionContext(weakref.ref(self), self._logger)
        self._contexts.add(context)
        return context


class EngineInspector:
    def __init__(self, header, tensors):
        self._header, self._tensors = header, tensors

    def get_engine_information(self, format):  # noqa: A002 - TensorRT's name
        assert format.name == "JSON"
        layers = self._header["layers"]
        if self._header["verbosity"] != "DETAILED":
            layers = [layer["Name"] for layer in layers]
        # 11 names them differently, and lists what an entry is.
        if self._trt.major >= 11:
            tensors = {"I/O Tensors": [{"Name": name} for name in self._tensors]}
        else:
            tensors = {"Bindings": list(self._tensors)}
        return json.dumps({"Layers": layers} | tensors)


class IExecutionContext:
    def __init__(self, engine, logger):
        self._engine, self._logger = engine, logger
        self._alive = True
        self._addresses, self._shapes, self._callbacks = {}, {}, {}
        self._watch = None
        self._emits = True
        self._last = 0.0

    def __del__(self):
        self._alive = False

    def _of(self):
        engine = self._engine()
        if engine is None:
            MISUSE.append("a context was used after its engine was destroyed")
        return engine

    @property
    def profiler(self):
        return self._watch

    @profiler.setter
    def profiler(self, value):
        self._watch = value

    @property
    def enqueue_emits_profile(self):
        return self._emits

    @enqueue_emits_profile.setter
    def enqueue_emits_profile(self, value):
        self._emits = value

    def set_input_shape(self, name, shape):
        low, _, high = self._of()._header["profile"][name]
        fits = len(shape) == len(low) and all(
            a <= n <= b for a, n, b in zip(low, shape, high, strict=False)
        )
        if not fits:
            text = f"Set dimensions of {name} to {list(shape)} but the profile has {low}..{high}"
            say(self._logger, self._trt, "ERROR", f"Error Code 3: API Usage Error ({text})")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, memory):
        if name not in self._of()._tensors or not isinstance(memory, int):
            return False
        self._addresses[name] = memory
        return True

    def infer_shapes(self):
        return [name for name in self._inputs() if -1 in self._input_shape(name)]

    def get_tensor_shape(self, name):
        mode, _, shape = self._of()._tensors[name]
        if mode == "INPUT":
            return self._input_shape(name)
        engine = self._of()
        if -1 not in shape or engine._by_data or self.infer_shapes():
            batch = next(self._input_shape(n)[0] for n in self._inputs())
            return tuple(batch if i == 0 and n == -1 else n for i, n in enumerate(shape))
        # ONNX's inference gives up where TensorRT does not: a run on zeros tells.
        shapes = tuple((name, self._input_shape(name)) for name in self._inputs())
        if shapes not in engine._sizes:
            engine._sizes[shapes] = engine._output_sizes(shapes)
        return engine._sizes[shapes][name]

    def _inputs(self):
        return [name for name, (mode, _, _) in self._of()._tensors.items() if mode == "INPUT"]

    def _input_shape(self, name):
        return self._shapes.get(name, self._of()._tensors[name][2])

    def execute_async_v3(self, stream_handle):
        if fault("enqueue") is not None or not isinstance(stream_handle, int):
            say(self._logger, self._trt, "ERROR", "Error Code 1: Cask (Cask execute failed)")
            return False
        engine = self._of()
        missing = [name for name in engine._tensors if not self._addresses.get(name)]
        if missing or self.infer_shapes():
            text = f"Address is not set for {missing}" if missing else "Not all shapes are set"
            say(self._logger, self._trt, "ERROR", f"Error Code 3: API Usage Error ({text})")
            return False
        state = (
            tuple(sorted(self._addresses.items())),
            tuple((name, self._input_shape(name)) for name in self._inputs()),
        )
        if state not in self._callbacks:
            self._callbacks[state] = _HOST_FUNCTION(lambda _: self._run(engine, *state))
        _enqueue(stream_handle, self._callbacks[state])
        if self._watch is not None and self._emits:
            self._report()
        return True

    def report_to_profiler(self):
        if self._watch is None:
            return False
        self._report()
        return True

    def _report(self):
        layers = self._of()._header["layers"]
        for layer in layers:
            call(self._watch, "report_layer_time", layer["Name"], self._last / len(layers))

    def _run(self, engine, addresses, shapes):
        place = dict(addresses)
        began = time.perf_counter()
        wanted = {i.name: i.type for i in engine._session.get_inputs()}
        feed = {}
        for name, shape in shapes:
            dtype = np.dtype(NUMPY[engine._tensors[name][1]])
            size = int(np.prod(shape)) * dtype.itemsize
            array = np.frombuffer(ctypes.string_at(place[name], size), dtype).reshape(shape)
            feed[name] = array.astype(np.int64) if "int64" in wanted[name] else array
        names = [o.name for o in engine._session.get_outputs()]
        for name, value in zip(names, engine._session.run(names, feed), strict=True):
            data = np.ascontiguousarray(value, NUMPY[engine._tensors[name][1]])
            ctypes.memmove(place[name], data.ctypes.data, data.nbytes)
        self._last = (time.perf_counter() - began) * 1e3


FIRST_ADDRESS = 4096
"""Real streams are pointers; smaller numbers are handles of `tests.fakes.cudaport`."""

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _enqueue(stream, work):
    """Put work on a stream; where no driver is loaded, or the stream is none of its, do it at once.

    As a host function it is ordered by the stream, and a capture records it like a kernel.
    """
    if stream < FIRST_ADDRESS:
        work(None)
        return
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL | _LOADED_ONLY)
        launch = driver.cuLaunchHostFunc
    except (OSError, AttributeError):
        work(None)
        return
    launch.argtypes = [ctypes.c_void_p, _HOST_FUNCTION, ctypes.c_void_p]
    code = launch(stream, work, None)
    if code:
        raise RuntimeError(f"cuLaunchHostFunc answered {code}")


_LOADED_ONLY = 4
"""RTLD_NOLOAD of Linux: find a library that is loaded already, load none."""
