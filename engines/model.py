"""What a model is: its task, the layout of its outputs, its classes, how its input is prepared.

Only nouns: `engines.describe` finds them out from an ONNX file, `agent.vision` acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.base import TensorSpec


class Task(str, Enum):
    """What the model answers."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    CLASSIFY = "classify"


class Layout(str, Enum):
    """How the answer lies in the output tensors (B batch, nc classes, N candidates).

    `extra` is nothing for detect, 32 mask coefficients for segment (prototypes are a second output
    [B,32,H/4,W/4]), k*d keypoint values for pose, one angle for OBB.
    """

    YOLO = "yolo"
    """[B, 4+nc+extra, N]: cxcywh in input pixels, class scores, extra (YOLOv8, v11, v12, v5u)."""
    ANCHOR = "yolo-anchor"
    """[B, N, 5+nc]: cxcywh in input pixels, objectness, class scores (YOLOv5, v7)."""
    END2END = "end2end"
    """[B, K, 6+extra]: xyxy in input pixels, score, class, extra (v10, v26, NMS in the graph).

    Rotated boxes are cxcywh here too.
    """
    DETR = "detr"
    """[B, Q, 4+nc]: cxcywh normalised to 0..1, class scores (RT-DETR)."""
    CLASSES = "classes"
    """[B, nc]: class probabilities, or logits (`ModelInfo.logits`)."""


class Resize(str, Enum):
    """How a frame is brought to the model's input size."""

    LETTERBOX = "letterbox"
    """Scaled with its aspect ratio kept, centred on grey (114)."""
    STRETCH = "stretch"
    """Scaled to the input size whatever its aspect ratio."""
    CENTER_CROP = "center-crop"
    """Shorter side scaled to the input size, centre kept."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Everything the pipeline needs to know of a model file.

    Attributes:
        name: metadata's or file's name, for people.
        digest: "sha256:" + hex digest of the file's bytes.
        task: what it answers.
        layout: how its outputs lie.
        names: class names by class id; their number is the number of classes.
        input: the image input as in the file, [B, 3, H, W], float32, float16 or uint8.
        outputs: the output tensors, at `height` x `width` where the file leaves their sizes open.
        height: input height in pixels to run at.
        width: input width in pixels to run at.
        max_batch: largest batch the file allows: n for a fixed batch of n, None for a dynamic one.
        resize: how a frame becomes an input.
        stride: largest stride of the network, pixels; a dynamic input size is a multiple of it.
        keypoint_shape: (number, values each: 2 or 3) for pose, else None.
        mean: subtracted from RGB scaled to 0..1, per channel.
        std: divisor after `mean`, per channel.
        logits: a classifier's scores are not normalised yet; softmax is applied to them.
        precision: of the weights in the file: "fp32", "fp16", "int8" or "mixed".
        inferred: one sentence for each fact that stands neither in the metadata nor in an
            override and was read from shapes instead.
    """

    name: str
    digest: str
    task: Task
    layout: Layout
    names: tuple[str, ...]
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    height: int
    width: int
    max_batch: int | None
    resize: Resize
    stride: int = 32
    keypoint_shape: tuple[int, int] | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    logits: bool = False
    precision: str = "fp32"
    inferred: tuple[str, ...] = ()
