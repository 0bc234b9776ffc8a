"""Versions of the agent and of what it stands on."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform

from agent import __version__

LIBRARIES = {
    "onnxruntime": "onnxruntime",
    "opencv": "cv2",
    "onnx": "onnx",
    "numpy": "numpy",
    "tensorrt": "tensorrt",
    "pycuda": "pycuda",
}
"""Name shown, and module: OpenCV of a Jetson has no entry among installed packages."""


def versions() -> dict[str, str | None]:
    """Version by name; None for what is not installed."""
    found: dict[str, str | None] = {
        "vigia": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for name, module in LIBRARIES.items():
        found[name] = _version(module)
    found["paho-mqtt"] = importlib.metadata.version("paho-mqtt")
    return found


def _version(module: str) -> str | None:
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        return None
    value = getattr(loaded, "__version__", None) or getattr(loaded, "VERSION_TEXT", "unknown")
    return str(value)
