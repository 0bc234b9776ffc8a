"""One model in every precision: graph in, graph out.

All variants compute the same function of the same inputs, named alike, from the same ranges and
with the same nodes in floating point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from engines import calibcache, quantize
from engines.half import to_half
from engines.prepare import HALF_OPSET, raised
from engines.quantizehost import insert_host
from engines.regions import full, sensitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.ranges import Ranges


class Variants:
    """One graph in all its precisions.

    Args:
        graph: prepared float32 graph; not changed.
        float_nodes: names of nodes that stay in floating point in int8 graphs; unstable regions
            (`engines.regions.sensitive`) stay so, too.
        ranges: gives the ranges; asked only by what needs them.
    """

    def __init__(
        self, graph: onnx.ModelProto, float_nodes: frozenset[str], ranges: Callable[[], Ranges]
    ) -> None:
        self._graph = graph
        self._float_nodes = float_nodes | sensitive(graph)
        self._ranges = ranges

    def fp32(self) -> onnx.ModelProto:
        """Float32, at the model's own opset or 13."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self._graph)
        return copy

    def qdq(self) -> onnx.ModelProto:
        """Float32 with Q/DQ pairs where TensorRT wants them.

        The opset is the model's own, at least 13. One above 17 is left: lowering an opset is not
        possible in general, and TensorRT 10 reads it; 8.6 refuses it with a message of its own.

        Raises:
            CalibrationError: there are no ranges, or they are of another model.
        """
        return quantize.insert(self.fp32(), self._ranges().amax, self._float_nodes)

    def qdq_host(self) -> onnx.ModelProto:
        """Float32 with Q/DQ pairs where ONNX Runtime's CPU kernels need them.

        Raises:
            CalibrationError: as `qdq`.
        """
        return insert_host(self.fp32(), self._ranges(), self._float_nodes)

    def fp16(self) -> onnx.ModelProto:
        """Typed float16 of opset 19 or later; float32 where that is needed.

        Raises:
            BuildError: the opset cannot be raised.
        """
        return to_half(self._graph, full(self._graph))

    def fp16_qdq(self) -> onnx.ModelProto:
        """Typed float16 of opset 19 or later, with Q/DQ pairs where TensorRT wants them.

        A node whose activations are so small that their scale would be far from representable in
        float16 stays in floating point.

        Raises:
            BuildError: the opset cannot be raised.
            CalibrationError: as `qdq`.
        """
        graph = raised(self.fp32(), HALF_OPSET)
        kept = full(graph)
        floor, amax = quantize.HALF_SCALE_FLOOR, self._ranges().amax
        floats = self._float_nodes | quantize.too_fine(graph, amax, self._float_nodes, floor)
        quantize.insert(graph, amax, floats, floor=floor)
        return to_half(graph, kept)

    def calibration_cache(self, trt_version: str) -> bytes:
        """TensorRT's calibration cache of the same ranges, for routes without Q/DQ.

        Args:
            trt_version: of the TensorRT that will read it, e.g. "8.6.1".

        Raises:
            CalibrationError: there are no ranges.
        """
        ranges = quantize.shared_ranges(self._graph, self._ranges().amax, self._float_nodes)
        return calibcache.encode(ranges, trt_version)
