"""What goes into a graph: shapes of its inputs, and calibration batches."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import BuildError
from engines.graph import PIXEL_MAX
from engines.trt.process import Pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    from numpy.typing import NDArray

    from engines.images import Images
    from engines.model import ModelInfo
    from engines.source import GraphStyle
    from engines.trt.order import Shapes


def shapes(model: onnx.ModelProto, batch: int, *, fixed: bool) -> dict[str, Shapes]:
    """Shapes that an engine is built for, by input.

    Args:
        model: of one style; only the batch may be open.
        batch: the largest batch that will be asked for.
        fixed: no other batch will be: a DLA takes one shape alone.

    Raises:
        BuildError: an input is open in another dimension than its first.
    """
    found: dict[str, Shapes] = {}
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = value.type.tensor_type.shape.dim
        rest = tuple(dim.dim_value for dim in dims[1:])
        if not dims or 0 in rest:
            raise BuildError(
                f"input {value.name!r} is open in more than its batch; set input_width and "
                "input_height, or export the model with a fixed size"
            )
        largest = dims[0].dim_value or batch
        smallest = largest if fixed or dims[0].dim_value else 1
        found[value.name] = ((smallest, *rest), (largest, *rest), (largest, *rest))
    return found


def pictures(
    images: Images, shape: tuple[int, ...], style: GraphStyle, info: ModelInfo
) -> Pictures:
    """Calibration pictures as batches of one shape; the last one is filled up with its last.

    Args:
        images: prepared pictures.
        shape: of a batch: the profile's best.
        style: what the graph takes: uint8 frames, or the model's own normalised tensor.
        info: of the model.
    """
    size = shape[0]
    dtype = np.float32 if style == "tensor" else np.uint8

    def batches() -> Iterator[NDArray[np.generic]]:
        rest = iter(images)
        while batch := list(islice(rest, size)):
            batch += batch[-1:] * (size - len(batch))
            stacked = np.stack(batch)
            yield normalised(stacked, info) if style == "tensor" else stacked

    return Pictures(-(-len(images) // size), shape, np.dtype(dtype).name, batches())


def normalised(frames: NDArray[np.uint8], info: ModelInfo) -> NDArray[np.float32]:
    """Frames as the model itself takes them: RGB [B,3,H,W], float32.

    Args:
        frames: BGR, uint8 [B,H,W,3].
        info: gives mean and standard deviation of pixels scaled to 0..1.
    """
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    scaled = (frames[..., ::-1].astype(np.float32) / np.float32(PIXEL_MAX) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
