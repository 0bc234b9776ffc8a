"""Classes that users derive from. Like pybind11's trampolines, callers swallow exceptions."""

from __future__ import annotations

import sys
import traceback


class _Checked(type):
    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if not made._made:
            name = next(kind.__name__ for kind in cls.__mro__ if kind.__module__ == "tensorrt")
            raise TypeError(f"tensorrt.{name}.__init__() must be called when overriding __init__")
        return made


class Derivable(metaclass=_Checked):
    """A derived class that overrides `__init__` must call the base's, or it cannot be made."""

    _subclassable = True
    _made = False

    def __init__(self):
        self._made = True


def call(target, method, *args, default=None):
    """Call as the bindings do: an exception is printed and lost."""
    try:
        return getattr(target, method)(*args)
    except Exception:  # noqa: BLE001 - this is what the trampolines do
        traceback.print_exc(file=sys.stderr)
        return default


class ILogger(Derivable):
    def log(self, severity, msg):
        raise NotImplementedError


class IProgressMonitor(Derivable):
    def phase_start(self, phase_name, parent_phase, num_steps):
        raise NotImplementedError

    def step_complete(self, phase_name, step):
        raise NotImplementedError

    def phase_finish(self, phase_name):
        raise NotImplementedError


class IProfiler(Derivable):
    def report_layer_time(self, layer_name, ms):
        raise NotImplementedError


class IInt8EntropyCalibrator2(Derivable):
    def get_batch_size(self):
        raise NotImplementedError

    def get_batch(self, names):
        raise NotImplementedError

    def read_calibration_cache(self):
        raise NotImplementedError

    def write_calibration_cache(self, cache):
        raise NotImplementedError
