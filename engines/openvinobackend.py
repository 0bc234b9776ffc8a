"""OpenVINO as a backend. What it builds is a graph and what it is to be compiled for.

A compiled model could be kept instead. It saves 0.15 s of 0.25 s at a start, is bound to one
version of the library, and importing it trusts far more of the library with the file.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, get_args

from engines.backend import BackendName, Precision, Product, Progress
from engines.errors import BackendError, BuildError, PlanError
from engines.fingerprint import machine
from engines.openvinograph import unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.backend import Options, Recipe
    from engines.base import Engine
    from engines.model import ModelInfo
    from engines.source import Source

MAGIC = b"VIGIA-OPENVINO 1 "

FLOATS: dict[str, Precision] = {"BF16": "bf16", "FP16": "fp16"}
"""The library's words for what a processor may compute in beside float32, and ours."""


class OpenVinoBackend:
    """See `engines.backend.Backend`."""

    name: BackendName = "openvino"

    def why_not(self) -> str:
        """See `engines.backend.Backend`."""
        if importlib.util.find_spec("openvino") is None:
            return "OpenVINO is not installed; install the extra `openvino`"
        try:
            from engines import openvino  # noqa: PLC0415 - optional, and takes 0.1 s

            openvino.capabilities()
        except (ImportError, BackendError) as error:
            return f"{error}; reinstall OpenVINO"
        return ""

    def offers(self) -> tuple[Precision, ...]:
        """What the library says that this processor has instructions for."""
        from engines import openvino  # noqa: PLC0415 - optional

        able = openvino.capabilities()
        floats = tuple(ours for theirs, ours in FLOATS.items() if theirs in able)
        return ("fp32", *floats, *(("int8",) if "INT8" in able else ()))

    def fingerprint(self) -> Mapping[str, str]:
        """See `engines.backend.Backend`."""
        from engines import openvino  # noqa: PLC0415 - optional

        return {
            **machine(),
            "library": openvino.version(),
            "capabilities": " ".join(sorted(openvino.capabilities())),
        }

    def build(
        self, source: Source, recipe: Recipe, options: Options, tell: Callable[[Progress], None]
    ) -> Product:
        """See `engines.backend.Backend`."""
        del options  # The graph is the same for all of them.
        offers = self.offers()
        if recipe.precision not in offers:
            raise BuildError(
                f"OpenVINO does not compute in {recipe.precision} on this processor; "
                f"it offers {', '.join(offers)}"
            )
        tell(Progress(f"writing the {recipe.precision} graph"))
        if recipe.precision == "int8":
            model = unsigned(source.variants("host", recipe.float_nodes, tell).qdq())
            route = "unsigned q/dq graph"
        else:
            model, route = source.graph("host"), f"graph, {recipe.precision} hint"
        blob = pack(recipe.precision, model.SerializeToString())
        return Product(blob, route, facts={"bytes": len(blob), "nodes": len(model.graph.node)})

    def load(self, blob: bytes, info: ModelInfo, options: Options) -> Engine:
        """See `engines.backend.Backend`."""
        del info  # Everything is in the graph.
        precision, model = unpack(blob)
        try:
            from engines import openvino  # noqa: PLC0415 - optional
        except ImportError as error:
            raise BackendError(f"{error}; install the extra `openvino`") from error
        return openvino.load(model, precision, options.run)


def pack(precision: Precision, model: bytes) -> bytes:
    """Put what it is to be compiled for in front of a model."""
    return MAGIC + precision.encode("ascii") + b"\n" + model


def unpack(blob: bytes) -> tuple[Precision, bytes]:
    """The inverse of `pack`.

    Raises:
        PlanError: the bytes are not of that form.
    """
    for precision in get_args(Precision):
        head = pack(precision, b"")
        if blob.startswith(head):
            return precision, blob[len(head) :]
    raise PlanError("the plan is not one that OpenVINO is given here; build it anew")
