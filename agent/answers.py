"""What an engine answers to a picture: its outputs taken apart, and its detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.vision.decode import Decoder
from agent.vision.parts import split
from engines.base import FrameContext
from engines.compare import OutputsDifferError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.calibration import Picture
    from agent.detection import Detections
    from agent.vision.decode import PostprocessSettings
    from engines.base import Engine
    from engines.model import ModelInfo


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an engine gives for one picture.

    Attributes:
        parts: the outputs, taken apart.
        detections: decoded at a threshold below the configured one.
    """

    parts: dict[str, NDArray[np.float32]]
    detections: Detections


class Answers:
    """Runs an engine on pictures, one after the other.

    Args:
        engine: not closed here.
        info: its model.
        settings: what of its outputs is decoded.

    Raises:
        InferenceError: it gives no context.
        OutputsDifferError: it takes pictures of another size.
    """

    def __init__(self, engine: Engine, info: ModelInfo, settings: PostprocessSettings) -> None:
        self._info = info
        self._decoder = Decoder(info, settings)
        self._context = engine.create_context(info.max_batch or 1)
        self._require_size()

    def __enter__(self) -> Answers:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_error: object) -> None:
        self._context.close()

    def of(self, picture: Picture) -> Answer:
        """Run the engine; a fixed batch is filled up with what was in it before.

        Raises:
            InferenceError: it failed.
            OutputError: its outputs cannot be decoded.
        """
        if isinstance(self._context, FrameContext):
            whole = (0, 0, self._info.width, self._info.height)
            self._context.write_frame(0, picture.pixels, whole, whole)
        else:
            (array,) = self._context.inputs.values()
            array[0] = picture.pixels
        outputs = self._context.infer()
        found = self._decoder(outputs, 0, picture.placement)
        return Answer(split(self._info, outputs, 0), found)

    def _require_size(self) -> None:
        if isinstance(self._context, FrameContext):
            return
        size = (self._info.height, self._info.width, 3)
        shapes = [array.shape[1:] for array in self._context.inputs.values()]
        if shapes != [size]:
            self._context.close()
            raise OutputsDifferError(f"it takes inputs of shapes {shapes} instead of {[size]}")
