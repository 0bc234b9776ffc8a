"""What a model found in a frame, as parallel arrays, and the result that is published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One object's mask, stored for its box only.

    Attributes:
        bits: bool, shape [h, w]: the mask inside the box, in frame pixels.
        x: left edge of `bits` in the frame, pixels.
        y: top edge of `bits` in the frame, pixels.
    """

    bits: NDArray[np.bool_]
    x: int
    y: int


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Objects found in one frame: parallel arrays in order of falling score.

    Coordinates are pixels of the original frame. Nothing found is `Detections.empty()`, not None.

    Attributes:
        boxes: float32 [n, 4], x0 y0 x1 y1. A classifier's box is the whole frame. For rotated boxes
            this is the upright rectangle around the rotated one.
        scores: float32 [n], 0..1.
        class_ids: int32 [n], indices into the model's class names.
        masks: n masks, or None where the model gives none.
        keypoints: float32 [n, k, 3] (x, y, visibility 0..1), or None.
        rotated: float32 [n, 5] (centre x, centre y, width, height, angle in radians, clockwise on
            the screen), or None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    masks: tuple[Mask, ...] | None = None
    keypoints: NDArray[np.float32] | None = None
    rotated: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """No objects."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int32),
        )


@dataclass(frozen=True, slots=True)
class StageTimes:
    """How long one frame spent where, in milliseconds. `total_ms` is capture to result."""

    queue_ms: float
    pre_ms: float
    infer_ms: float
    post_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model produced a result.

    Attributes:
        slot: name of the model in the configuration.
        name: the model's own name, by default the file's stem.
        digest: "sha256:" + hex digest of the ONNX file.
        backend: "onnxruntime", "openvino" or "tensorrt".
        precision: "fp32", "bf16", "fp16", "int8" or "mixed".
        names: class names by class id.
    """

    slot: str
    name: str
    digest: str
    backend: str
    precision: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that is published about one analysed frame.

    Attributes:
        camera: name of the camera.
        frame_index: `Frame.index`.
        width: width of the original frame, pixels.
        height: height of the original frame, pixels.
        monotonic_ns: `Frame.monotonic_ns`.
        wall_s: `Frame.wall_s`.
        model: which model.
        detections: what was found.
        times: per-stage times.
        dropped: frames of this camera skipped since the previous result.
    """

    camera: str
    frame_index: int
    width: int
    height: int
    monotonic_ns: int
    wall_s: float
    model: ModelRef
    detections: Detections
    times: StageTimes
    dropped: int = field(default=0)
