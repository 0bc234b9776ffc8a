"""A model on its way to an engine: its graph in every style, its ranges, its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import onnx

from engines import ranges as _ranges
from engines.calibrate import calibrate
from engines.errors import CalibrationError
from engines.graph import PIXEL_MAX, bake
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
        """The float32 graph; a fresh copy.

        Nodes have the same names in all styles, but for those that prepare the input, whose names
        begin with `engines.graph.PREFIX`.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(self._prepared)
        if style == "tensor":
            return self._sized(copy)
        return bake(copy, self.info, style)

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
        known = self._found.amax
        graph = self.graph(style)
        producer = Wiring(graph.graph).producers.get(name)
        is_bytes = producer is not None and producer.op_type == "Cast"
        image = PIXEL_MAX if is_bytes else self._image_reach()
        amax = {n: image if n == name else known[n] for n in known}
        found = self._found
        return Ranges(found.method, found.model_digest, found.data_digest, found.images, amax)

    def _image_reach(self) -> float:
        """Largest magnitude of a normalised pixel: black or white of one of the channels."""
        pairs = list(zip(self.info.mean, self.info.std, strict=True))
        return max(abs(level - m) / s for level in (0.0, 1.0) for m, s in pairs)

    def _calibrate(self, tell: Callable[[Progress], None]) -> Ranges:
        pictures = self.calibration
        if pictures is None:
            raise CalibrationError(
                "int8 needs pictures of what the cameras see: set quantize.calibration to a folder "
                "or a video"
            )
        graph = self.graph("host")
        amax = calibrate(
            graph,
            [n for n in float_activations(graph) if not n.startswith("vigia/")],
            pictures,
            method=self._method,
            threads=self._threads,
            tell=tell,
        )
        return Ranges(self._method, self.info.digest, pictures.digest, len(pictures), amax)

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
