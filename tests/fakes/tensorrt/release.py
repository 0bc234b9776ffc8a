"""Makes the module of one release from its vector and the fake's classes."""

from __future__ import annotations

import functools
import json
import types
from pathlib import Path

from . import building, callbacks, running
from .strict import release_class, release_enum

VECTORS = Path(__file__).parents[2] / "vectors" / "tensorrt"

VERSIONS = ("8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")

CLASSES = tuple(
    kind
    for module in (callbacks, building, running)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__ and name != "Derivable"
    if not name.startswith("_")
)
"""Every class that the fake can do."""

FUNCTIONS = ("get_nv_onnx_parser_version",)


@functools.cache
def vector(version):
    """Which names a release has, as `scripts/trt-vectors` wrote it from NVIDIA's bindings."""
    return json.loads((VECTORS / f"api-{version}.json").read_text("utf-8"))


class Release:
    """What the fake's classes know of their release."""

    def __init__(self, version, module):
        self.version = version
        self.module = module
        self.major = int(version.partition(".")[0])

    @property
    def number(self):
        """As in calibration caches: 8.6.1 is 8601, 10.3.0 is 100300."""
        major, minor, patch = (int(n) for n in self.version.split(".")[:3])
        scale = 10_000 if major >= 10 else 1000
        return major * scale + minor * 100 + patch


def make(version):
    """A module with exactly the names of this release that the fake can do."""
    data = vector(version)
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    trt = Release(version, module)
    for name, members in data["enums"].items():
        if "." not in name:
            setattr(module, name, release_enum(name, members))
    for kind in CLASSES:
        if kind.__name__ in data["classes"]:
            made = release_class(kind, data["classes"][kind.__name__], trt)
            setattr(module, kind.__name__, made)
    severity = release_enum("Severity", data["enums"]["ILogger.Severity"])
    module.ILogger.Severity = severity
    for name in FUNCTIONS:
        if name in data["functions"]:
            setattr(module, name, lambda: trt.number)
    return module
