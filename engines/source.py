"""A model on its way to an engine: its graph in every style, its ranges, its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import onnx

from engines import ranges as _ranges
from engines.calibrate import calibrate
from engines.errors import CalibrationError
from engines.graph import PIXEL_MAX, PREFIX, bake
from engines.hostforms import expectations
from engines.precision import Variants
from engines.prepare import prepare
from engines.ranges import Ranges
from engines.regions import head
from engines.wiring import Wiring, float_activations

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.backend import Progress
    from engines.images import Images
    from engines.model import ModelInfo
    from engines.ranges import Method

GraphStyle = Literal["host", "device", "tensor"]
"""Where a graph takes its pictures: as uint8 BGR on a processor ("host") or for TensorRT
("device"), see `engines.graph`; or as the model's own normalised float tensor ("tensor")."""

RECIPE_VERSION = _ranges.RECIPE_VERSION
"""Part of every plan's key: raised whenever the same model and pictures lead to other graphs."""


def _silent(progress: Progress) -> None:
    """Nobody listens."""


class Source:
    """One model with its calibration pictures.

    Not for several threads at once.

    Args:
        model: as read from its file; not changed.
        info: what `engines.describe` said of it.
        calibration: pictures for int8, or None where there are none.
        method: how ranges are found.
        threads: processor cores that calibration may use.

    Attributes:
        info: as given.
        calibration: as given.

    Raises:
        UnsupportedModelError: a weight is NaN or infinite, or the model is quantised already.
        BuildError: the model's opset is too old and cannot be raised.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        info: ModelInfo,
        calibration: Images | None,
        *,
        method: Method = "percentile",
        threads: int = 1,
    ) -> None:
        self.info = info
        self.calibration = calibration
        self._method: Method = method
        self._threads = threads
        self._prepared = prepare(model)
        self._found: Ranges | None = None

    def graph(self, style: GraphStyle) -> onnx.ModelProto:
        """The float32 graph; a fresh copy. The host's has `engines.hostforms` in it.

        Nodes have the same names in all styles, but for those that a style adds: their names begin
        with `engines.graph.PREFIX` or with the name of the node whose place they take.
        """
        copy = self._copy()
        if style == "tensor":
            return self._sized(copy)
        baked = bake(copy, self.info, style)
        return expectations(baked) if style == "host" else baked

    def _copy(self) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(self._prepared)
        return copy

    def _sized(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Fix the height and width that the file leaves open; the batch stays as it is."""
        info = self.info
        image = next(i for i in model.graph.input if i.name == info.input.name)
        dims = image.type.tensor_type.shape.dim
        for dim, size in zip(dims, (info.max_batch, 3, info.height, info.width), strict=True):
            if size is not None:
                dim.dim_value = size
            elif not dim.dim_param:
                dim.dim_param = "batch"
        return model

    def ranges(self, style: GraphStyle, tell: Callable[[Progress], None] = _silent) -> Ranges:
        """Ranges of the float tensors of a style's graph; found once, with the host's.

        Styles differ in the image tensor only: it is 0..255 where scaling went into the first
        weights, and normalised elsewhere.

        Raises:
            CalibrationError: there are no pictures, or they lead to values that are not finite.
        """
        if self._found is None:
            self._found = self._calibrate(tell)
        name = self.info.input.name
        known = self._found
        graph = self.graph(style)
        producer = Wiring(graph.graph).producers.get(name)
        is_bytes = producer is not None and producer.op_type == "Cast"
        least, greatest = (0.0, PIXEL_MAX) if is_bytes else self._image_reach()
        if name not in known.amax:
            return known
        return replace(
            self._found,
            amax={**known.amax, name: max(-least, greatest)},
            least={**known.least, name: least},
        )

    def _image_reach(self) -> tuple[float, float]:
        """Least and greatest value of a normalised pixel: black or white of one of the channels."""
        pairs = list(zip(self.info.mean, self.info.std, strict=True))
        return min(0.0, *(-m / s for m, s in pairs)), max((1 - m) / s for m, s in pairs)

    def _calibrate(self, tell: Callable[[Progress], None]) -> Ranges:
        pictures = self.calibration
        if pictures is None:
            raise CalibrationError(
                "int8 needs pictures of what the cameras see: set quantize.calibration to a folder "
                "or a video"
            )
        # As the file has it: what a form for the host adds is never quantised.
        graph = bake(self._copy(), self.info, "host")
        reach = calibrate(
            graph,
            [n for n in float_activations(graph) if not n.startswith(PREFIX)],
            pictures,
            method=self._method,
            threads=self._threads,
            tell=tell,
        )
        return Ranges(
            method=self._method,
            model_digest=self.info.digest,
            data_digest=pictures.digest,
            images=len(pictures),
            amax={name: r.amax for name, r in reach.items()},
            least={name: r.least for name, r in reach.items()},
        )

    def head(self, style: GraphStyle = "host") -> frozenset[str]:  # noqa: ARG002 - the contract
        """Names of the nodes that stay in floating point in the first int8 engine.

        The same in all styles; see `engines.regions.head`.
        """
        return head(self._prepared)

    def variants(
        self,
        style: GraphStyle,
        float_nodes: frozenset[str],
        tell: Callable[[Progress], None] = _silent,
    ) -> Variants:
        """The model in all precisions, in one style."""
        return Variants(self.graph(style), float_nodes, lambda: self.ranges(style, tell))
