"""ONNX Runtime as a backend: what it builds is the graph itself, which it prepares when it loads.

That takes it tens of milliseconds; its own optimised files would save little and belong to one
version and one processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines import ort
from engines.backend import BackendName, Precision, Product, Progress
from engines.errors import BuildError
from engines.fingerprint import library, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.backend import Options, Recipe
    from engines.base import Engine
    from engines.model import ModelInfo
    from engines.source import Source

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Packages that carry the library; which one it is decides on its providers."""


class OrtBackend:
    """See `engines.backend.Backend`."""

    name: BackendName = "onnxruntime"

    def why_not(self) -> str:
        """It is a dependency of this package: always there."""
        return ""

    def offers(self) -> tuple[Precision, ...]:
        """Other types than these the library's processor kernels cast to float32 and back."""
        return ("fp32", "int8")

    def fingerprint(self) -> Mapping[str, str]:
        """See `engines.backend.Backend`."""
        return {
            **machine(),
            "library": ort.version(),
            "packages": " ".join(name for name in PACKAGES if library(name)),
        }

    def build(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> Product:
        """See `engines.backend.Backend`."""
        del options  # The graph is the same for all of them.
        tell(Progress(f"writing the {recipe.precision} graph"))
        if recipe.precision == "fp32":
            model, route = source.graph("host"), "graph"
        elif recipe.precision == "int8":
            variants = source.variants("host", recipe.float_nodes, tell)
            model, route = variants.qdq_host(), "host q/dq graph"
        else:
            raise BuildError(
                f"no {recipe.precision} engine is built for ONNX Runtime: most processors do not "
                "compute in it, so it casts to float32 and back, which is slower than fp32; ask "
                "for fp32 or int8, or take backend: openvino or tensorrt"
            )
        blob = model.SerializeToString()
        return Product(blob, route, facts={"bytes": len(blob), "nodes": len(model.graph.node)})

    def load(self, blob: bytes, info: ModelInfo, options: Options) -> Engine:
        """See `engines.backend.Backend`."""
        return ort.load(blob, info.precision, options.run)
