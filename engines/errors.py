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
