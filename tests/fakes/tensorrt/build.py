"""One build: the checks of TensorRT's builder in its order, its callbacks, then the plan."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import struct
import threading

import numpy as np

from . import onnxgraph, planfile
from .callbacks import call
from .faults import fault

STEPS = 4
HEADER = re.compile(rb"TRT-(\d+)-EntropyCalibration2\n")


class _RefusedError(Exception):
    """TensorRT logs a line and returns None."""


def build(trt, logger, network, config, dla_cores):
    """The plan, or None with a line in the log."""

    def say(severity, text):
        call(logger, "log", trt.module.ILogger.Severity[severity], text)

    try:
        return _build(trt, say, network, config, dla_cores)
    except _RefusedError as refusal:
        say("ERROR", f"[builder.cpp::buildSerializedNetwork] Error Code 4: {refusal}")
        return None


def _build(trt, say, network, config, dla_cores):
    flags = {flag.name for flag in config._flags}
    creation = trt.module.NetworkDefinitionCreationFlag
    strong = trt.major >= 11 or (
        hasattr(creation, "STRONGLY_TYPED")
        and bool(network._flags >> int(creation.STRONGLY_TYPED) & 1)
    )
    model = network._model
    if model is None:
        raise _RefusedError("Network must have at least one output")
    explicit = onnxgraph.quantised(model)
    calibrator = config._values["int8_calibrator"]
    dla = config._values["default_device_type"].name == "DLA"
    _check_types(flags, strong, explicit, calibrator)
    if dla:
        _check_dla(config, flags, strong, explicit, dla_cores)
    profile = _check_profile(network, config)
    _inject(strong, explicit, calibrator)
    _progress(config._values["progress_monitor"], say)
    cached = None
    if calibrator is not None and not explicit:
        cached = _calibrate(trt, say, model, network, calibrator, profile)
    if config._timing is not None:
        digest = hashlib.sha256(model.SerializeToString()).hexdigest()
        config._timing._content["times"][digest] = 1.0
    pins = {layer._name for layer in network._layers if layer._pinned is not None}
    answer = fault("precision")

    def settle(name, op, from_int8, kind):
        if answer:
            return answer
        implicit = cached is not None and op in onnxgraph.QUANTISED and name not in pins
        if from_int8 or implicit:
            return "INT8"
        return kind if strong else "HALF" if "FP16" in flags else "FLOAT"

    header = {
        "version": trt.version,
        "sm": fault("sm") or "87",
        "profile": profile,
        "verbosity": config._values["profiling_verbosity"].name,
        "layers": onnxgraph.layers(model, settle),
        "dla": dla,
        "flags": sorted(flags),
        "strong": strong,
        "pools": config._pools,
        "level": config._values["builder_optimization_level"],
        "aux_streams": config._values["max_aux_streams"],
    }
    return planfile.write(header, model.SerializeToString())


def _check_types(flags, strong, explicit, calibrator):
    if strong and flags & {"FP16", "INT8", "BF16", "FP8"}:
        raise _RefusedError("Precision flags are not allowed in a strongly typed network")
    if strong and calibrator is not None:
        raise _RefusedError("Calibrators are not allowed in a strongly typed network")
    if not strong and explicit and "INT8" not in flags:
        raise _RefusedError("Q/DQ layers are present, but BuilderFlag INT8 is not set")
    if not strong and not explicit and "INT8" in flags and calibrator is None:
        raise _RefusedError("Calibration failure: no calibrator and no dynamic ranges")


def _check_dla(config, flags, strong, explicit, dla_cores):
    if not 0 <= config._values["DLA_core"] < dla_cores:
        raise _RefusedError(f"DLA core {config._values['DLA_core']} does not exist")
    if not strong and not flags & {"FP16", "INT8"}:
        raise _RefusedError("DLA only supports FP16 and INT8")
    if explicit:
        raise _RefusedError("DLA does not support Q/DQ layers")
    if "GPU_FALLBACK" not in flags:
        raise _RefusedError("Layers cannot run on DLA and GPU fallback is not enabled")


def _check_profile(network, config):
    shapes = {t.name: list(t.shape) for t in network._inputs}
    if any(-1 in shape for shape in shapes.values()):
        if not config._profiles:
            raise _RefusedError(
                "Network has dynamic or shape inputs, but no optimization profile has been defined"
            )
        given = config._profiles[0]._shapes
        for name, shape in shapes.items():
            if -1 in shape and name not in given:
                raise _RefusedError(f"Input {name} has no shape in the profile")
            low, best, high = given.get(name, [shape] * 3)
            fits = all(a <= b <= c for a, b, c in zip(low, best, high, strict=True))
            fixed = all(d in (-1, a) for d, a in zip(shape, low, strict=True))
            if not fits or not fixed:
                raise _RefusedError(f"Profile of {name} does not fit its shape")
        return {name: given.get(name, [shape] * 3) for name, shape in shapes.items()}
    return {name: [shape] * 3 for name, shape in shapes.items()}


def _inject(strong, explicit, calibrator):
    kind = "strong" if strong else "calibrated" if calibrator is not None else "weak"
    if fault("build-none") in {kind, "all"}:
        raise _RefusedError(f"injected: {kind} networks do not build")
    if fault("strong-qdq") is not None and strong and explicit:
        raise _RefusedError("Myelin ([myelin] dequantize f32 with f16 scale)")
    if fault("calibrated") is not None and calibrator is not None:
        raise _RefusedError("checkSanity: region should have been removed from Graph::regions")
    if fault("out-of-memory") == "build":
        raise _RefusedError("Requested amount of GPU memory (1073741824 bytes): out of memory")
    if fault("kill") is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    if fault("bad-alloc") is not None:
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()
    if fault("crash") is not None:
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault("hang") is not None:
        threading.Event().wait()


def _progress(monitor, say):
    if monitor is None:
        return
    call(monitor, "phase_start", "Building", None, STEPS)
    for step in range(STEPS):
        # An exception counts as False, which is what cancels a build.
        if not call(monitor, "step_complete", "Building", step, default=False):
            call(monitor, "phase_finish", "Building")
            raise _RefusedError("Build was cancelled by the progress monitor")
    call(monitor, "phase_finish", "Building")
    say("INFO", "Engine generation completed")


def _calibrate(trt, say, model, network, calibrator, profile):
    cache = call(calibrator, "read_calibration_cache")
    if cache:
        found = HEADER.match(bytes(cache))
        if found and int(found.group(1)) == trt.number:
            return bytes(cache)
        say("WARNING", "The calibration cache is of another version and is skipped")
    names = [t.name for t in network._inputs]
    feeds = []
    while True:
        pointers = call(calibrator, "get_batch", names)
        if not pointers:
            break
        if len(pointers) != len(names):
            raise _RefusedError("fake: an out-of-bounds read of the list of pointers")
        feeds.append(
            {
                tensor.name: _read(pointer, profile[tensor.name][1], tensor.dtype.name)
                for pointer, tensor in zip(pointers, network._inputs, strict=True)
            }
        )
    if not feeds:
        raise _RefusedError("Calibration failure occurred with no scaling factors detected")
    ranges = onnxgraph.calibration_ranges(model, feeds)
    text = f"TRT-{trt.number}-EntropyCalibration2\n" + "".join(
        f"{name}: {struct.pack('>f', amax / 127).hex()}\n" for name, amax in ranges.items()
    )
    memory = bytearray(text.encode())
    call(calibrator, "write_calibration_cache", memoryview(memory))
    # The memory was TensorRT's: whoever kept a view of it now sees something else.
    memory[:] = b"\0" * len(memory)
    return text.encode()


def _read(pointer, shape, kind):
    dtype = np.dtype({"FLOAT": "f4", "HALF": "f2", "UINT8": "u1"}[kind])
    count = int(np.prod(shape))
    return np.frombuffer(ctypes.string_at(pointer, count * dtype.itemsize), dtype).reshape(shape)
