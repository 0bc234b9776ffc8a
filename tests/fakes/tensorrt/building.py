"""Builder, network, parser and configuration: checks what TensorRT checks, then keeps the graph."""

from __future__ import annotations

import json

import onnx

from . import onnxgraph
from .build import build
from .callbacks import call
from .faults import fault


def say(logger, trt, severity, text):
    call(logger, "log", trt.module.ILogger.Severity[severity], text)


class IHostMemory(bytes):
    """Bytes, since a class in Python cannot offer the buffer protocol before 3.12."""

    @property
    def nbytes(self):
        return len(self)


class ITensor:
    def __init__(self, name, shape, dtype):
        self._name, self._shape, self._dtype = name, shape, dtype

    @property
    def name(self):
        return self._name

    @property
    def shape(self):
        return self._shape

    @property
    def dtype(self):
        return self._dtype

    @property
    def is_shape_tensor(self):
        return False


class ILayer:
    def __init__(self, name, outputs):
        self._name, self._outputs = name, outputs
        self._pinned = None

    @property
    def name(self):
        return self._name

    @property
    def num_outputs(self):
        return len(self._outputs)

    def get_output(self, index):
        return self._outputs[index]

    @property
    def precision(self):
        return self._pinned

    @precision.setter
    def precision(self, value):
        self._pinned = value

    def set_output_type(self, index, dtype):
        assert self._outputs[index].dtype is not None


class INetworkDefinition:
    def __init__(self, flags):
        self._flags = flags
        self._model = None
        self._inputs, self._outputs, self._layers = [], [], []

    def _take(self, model):
        self._model = model
        types, shapes = onnxgraph.element_types(model), onnxgraph.shapes(model)

        def tensor(name):
            kind = onnxgraph.KINDS.get(types.get(name, 1), "FLOAT")
            members = self._trt.module.DataType.__members__
            dtype = members["INT32" if kind not in members else kind]
            return self._trt.module.ITensor(name, shapes.get(name, ()), dtype)

        constants = {t.name for t in model.graph.initializer}
        self._inputs = [tensor(i.name) for i in model.graph.input if i.name not in constants]
        self._outputs = [tensor(o.name) for o in model.graph.output]
        self._layers = [
            self._trt.module.ILayer(node.name, [tensor(name) for name in node.output])
            for node in model.graph.node
        ]

    @property
    def num_inputs(self):
        return len(self._inputs)

    def get_input(self, index):
        return self._inputs[index]

    @property
    def num_layers(self):
        return len(self._layers)

    def get_layer(self, index):
        return self._layers[index]


class ParserError:
    def __init__(self, node, name, operator, text):
        self._node, self._name, self._operator, self._text = node, name, operator, text

    def desc(self):
        return self._text

    def node(self):
        return self._node

    def node_name(self):
        return self._name

    def node_operator(self):
        return self._operator


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._logger = network, logger
        self._errors = []
        self._flags = set()
        self._config = None

    def set_flag(self, flag):
        self._flags.add(flag)

    def set_builder_config(self, builder_config):
        self._config = builder_config
        return True

    def parse(self, model, path=None):
        self._errors = []
        flags = self._trt.module.NetworkDefinitionCreationFlag
        if self._trt.major < 10 and not self._network._flags >> int(flags.EXPLICIT_BATCH) & 1:
            self._add(-1, "", "", "This version of the ONNX parser only supports explicit batch")
            return False
        try:
            graph = onnx.load_model_from_string(bytes(model))
        except Exception:  # noqa: BLE001 - protobuf's error has no public name
            self._add(-1, "", "", "Failed to parse ONNX model from the given buffer")
            return False
        if self._trt.module.__dict__.get("OnnxParserFlag") and any(
            flag.name == "ADJUST_FOR_DLA" and self._config is None for flag in self._flags
        ):
            self._add(-1, "", "", "ADJUST_FOR_DLA needs a builder config")
            return False
        for refusal in onnxgraph.refusals(graph, self._trt.major, fault("refuse-op")):
            self._add(*refusal)
        if not self._errors:
            self._network._take(graph)
        return not self._errors

    def _add(self, node, name, operator, text):
        self._errors.append(self._trt.module.ParserError(node, name, operator, text))
        say(self._logger, self._trt, "ERROR", f"ModelImporter.cpp: ERROR: {text}")

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):  # noqa: A002 - TensorRT's names
        if not len(min) == len(opt) == len(max):
            raise ValueError("dimensions differ in number")
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content):
        self._content = content

    def serialize(self):
        return self._trt.module.IHostMemory(json.dumps(self._content).encode())

    def combine(self, input_cache, ignore_mismatch):
        if fault("timing-refused") is not None or not isinstance(input_cache, ITimingCache):
            return False
        self._content["times"] |= input_cache._content["times"]
        return True


class IBuilderConfig:
    def __init__(self):
        module = self._trt.module
        self._logger = None
        self._flags = {module.BuilderFlag.TF32}
        self._pools = {}
        self._profiles = []
        self._timing = None
        self._calibration_profile = None
        self._values = {
            "builder_optimization_level": 3,
            "default_device_type": module.DeviceType.GPU,
            "DLA_core": -1,
            "int8_calibrator": None,
            "max_aux_streams": -1,
            "profiling_verbosity": module.ProfilingVerbosity.LAYER_NAMES_ONLY,
            "progress_monitor": None,
        }

    def set_flag(self, flag):
        assert isinstance(flag, self._trt.module.BuilderFlag)
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool, pool_size):
        assert isinstance(pool, self._trt.module.MemoryPoolType)
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile):
        self._calibration_profile = profile
        return True

    def create_timing_cache(self, serialized_timing_cache):
        content = {"version": self._trt.version, "sm": fault("sm") or "87", "times": {}}
        if serialized_timing_cache:
            try:
                content = json.loads(bytes(serialized_timing_cache))
            except ValueError:
                say(self._logger, self._trt, "ERROR", "Failed to deserialize the timing cache")
                return None
        return self._trt.module.ITimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        mine = (self._trt.version, fault("sm") or "87")
        if fault("timing-refused") is not None or mine != (
            cache._content["version"],
            cache._content["sm"],
        ):
            say(self._logger, self._trt, "ERROR", "The timing cache was made elsewhere")
            return ignore_mismatch
        self._timing = cache
        return True

    def get_timing_cache(self):
        return self._timing


def _setting(name):
    return property(
        lambda self: self._values[name],
        lambda self, value: self._values.__setitem__(name, value),
    )


for _name in (
    "builder_optimization_level",
    "default_device_type",
    "DLA_core",
    "int8_calibrator",
    "max_aux_streams",
    "profiling_verbosity",
    "progress_monitor",
):
    setattr(IBuilderConfig, _name, _setting(_name))


class Builder:
    def __init__(self, logger):
        if fault("no-driver") is not None:
            say(logger, self._trt, "ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    @property
    def num_DLA_cores(self):  # noqa: N802 - TensorRT's name
        return int(fault("dla") or 0)

    def create_network(self, flags=0):
        return self._trt.module.INetworkDefinition(flags)

    def create_builder_config(self):
        config = self._trt.module.IBuilderConfig()
        config._logger = self._logger
        return config

    def create_optimization_profile(self):
        return self._trt.module.IOptimizationProfile()

    def build_serialized_network(self, network, config):
        plan = build(self._trt, self._logger, network, config, self.num_DLA_cores)
        return None if plan is None else self._trt.module.IHostMemory(plan)
