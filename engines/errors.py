"""The engine package's one family of errors.

A message says what is wrong, where, and what to do. Foreign libraries' exceptions are mapped to
these where the library is imported.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything `engines` raises on purpose."""


class ModelFileError(EngineError):
    """The model file is missing, truncated, not ONNX, or not self-contained."""


class UnsupportedModelError(EngineError):
    """The file is a model, but not one whose inputs and outputs are understood."""


class BackendError(EngineError):
    """The runtime, provider or device that was asked for is not available or refused the model."""


class InferenceError(EngineError):
    """A loaded model failed while it ran."""


class BuildError(EngineError):
    """No engine could be built; the message carries the reason of every way that was tried."""


class CalibrationError(EngineError):
    """Calibration pictures are missing, unusable, or lead to values that are not finite."""


class PlanError(EngineError):
    """A stored plan is foreign, damaged or not for this device; it is never run, but rebuilt."""
