"""Turns a model's output tensors into detections in frame pixels.

A `Decoder` is built once from what the model is and what is wanted of it; it holds no state between
frames and may be used from several threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.detection import Detections
from agent.errors import OutputError
from agent.vision import boxes as geometry
from agent.vision.candidates import (
    ANCHOR_HEAD,
    BOX,
    END2END_HEAD,
    Candidates,
    read_anchor,
    read_detr,
    read_end2end,
    read_yolo,
    require_finite,
)
from agent.vision.masks import cut_masks
from agent.vision.nms import by_score, nms, nms_rotated
from engines.model import Layout, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agent.vision.preprocess import Placement
    from engines.model import ModelInfo

READERS = {
    Layout.YOLO: read_yolo,
    Layout.ANCHOR: read_anchor,
    Layout.END2END: read_end2end,
    Layout.DETR: read_detr,
}

NEEDS_NMS = frozenset({Layout.YOLO, Layout.ANCHOR})
"""Layouts with many candidates for one object."""

RANK = 3
"""Dimensions of a detector's main output; a classifier's has one less, prototypes one more."""

WITH_VISIBILITY = 3
"""Values of a keypoint that carries a visibility beside x and y."""


@dataclass(frozen=True, slots=True)
class PostprocessSettings:
    """What of the model's output is wanted.

    Attributes:
        confidence: least score of an object, 0..1.
        class_confidence: least score by class id, instead of `confidence`.
        iou: overlap above which NMS drops the weaker box, 0..1.
        agnostic: objects of different classes suppress each other too.
        classes: class ids to report; None for all.
        max_detections: most objects of one frame, those with the highest scores.
    """

    confidence: float = 0.25
    class_confidence: Mapping[int, float] = field(default_factory=dict)
    iou: float = 0.5
    agnostic: bool = False
    classes: frozenset[int] | None = None
    max_detections: int = 300


class Decoder:
    """Decodes the outputs of one model.

    Args:
        info: the model, from `engines.describe`.
        settings: what is wanted.
    """

    def __init__(self, info: ModelInfo, settings: PostprocessSettings) -> None:
        self._info = info
        self._settings = settings
        rank = RANK - 1 if info.layout is Layout.CLASSES else RANK
        self._main = next(o.name for o in info.outputs if len(o.shape) == rank)
        self._prototypes = next((o.name for o in info.outputs if len(o.shape) == RANK + 1), "")
        thresholds = np.full(len(info.names), settings.confidence, np.float32)
        for class_id, least in settings.class_confidence.items():
            thresholds[class_id] = least
        if settings.classes is not None:
            unwanted = sorted(set(range(len(info.names))) - settings.classes)
            thresholds[unwanted] = np.inf
        self._thresholds = thresholds

    def __call__(
        self, outputs: Mapping[str, NDArray[Any]], index: int, placement: Placement
    ) -> Detections:
        """Decode one picture of a batch.

        Args:
            outputs: the engine's outputs by name, float32 or float16; nothing returned refers to
                them.
            index: which picture of the batch.
            placement: how its frame lies in the input.

        Returns:
            The objects, in order of falling score, in frame pixels.

        Raises:
            OutputError: an output has not the shape it should have, or is NaN or infinite.
        """
        output = self._take(outputs, self._main, index)
        if self._info.layout is Layout.CLASSES:
            return self._classes(output, placement)
        prototypes = None
        if self._info.task is Task.SEGMENT:
            prototypes = self._take(outputs, self._prototypes, index)
        self._require_values(output, prototypes)
        found = READERS[self._info.layout](output, self._thresholds)
        if self._info.task is Task.OBB:
            return self._rotated(found, placement)
        return self._upright(found, placement, prototypes)

    def _take(
        self, outputs: Mapping[str, NDArray[Any]], name: str, index: int
    ) -> NDArray[np.float32]:
        if name not in outputs:
            raise OutputError(f"the model gave no output {name!r}, only {', '.join(outputs)}")
        return np.asarray(outputs[name][index], np.float32)

    def _require_values(
        self, output: NDArray[np.float32], prototypes: NDArray[np.float32] | None
    ) -> None:
        """Refuse an output with another number of values than this model's candidates have."""
        info = self._info
        extra = 0
        if prototypes is not None:
            extra = prototypes.shape[0]
        elif info.task is Task.POSE and info.keypoint_shape is not None:
            extra = info.keypoint_shape[0] * info.keypoint_shape[1]
        elif info.task is Task.OBB:
            extra = 1
        expected = {
            Layout.YOLO: BOX + len(info.names) + extra,
            Layout.ANCHOR: ANCHOR_HEAD + len(info.names),
            Layout.END2END: END2END_HEAD + extra,
            Layout.DETR: BOX + len(info.names),
        }[info.layout]
        axis = 0 if info.layout is Layout.YOLO else 1
        if output.ndim != RANK - 1 or output.shape[axis] != expected:
            raise OutputError(
                f"output {self._main!r} has shape {list(output.shape)} for one picture; "
                f"a {info.task.value} model of layout {info.layout.value} with {len(info.names)} "
                f"classes has {expected} values for each candidate"
            )

    def _classes(self, output: NDArray[np.float32], placement: Placement) -> Detections:
        require_finite(output)
        if output.shape != self._thresholds.shape:
            raise OutputError(
                f"output {self._main!r} has shape {list(output.shape)} for one picture; "
                f"the model has {len(self._thresholds)} class names"
            )
        if self._info.logits:
            powers = np.exp(output - output.max())
            output = powers / powers.sum()
        wanted = np.flatnonzero(output >= self._thresholds)
        order = wanted[by_score(output[wanted])][: self._settings.max_detections]
        frame = np.array([[0, 0, placement.width, placement.height]], np.float32)
        return Detections(
            boxes=np.repeat(frame, len(order), axis=0),
            scores=np.clip(output[order], 0, 1),
            class_ids=order.astype(np.int32),
        )

    def _upright(
        self,
        found: Candidates,
        placement: Placement,
        prototypes: NDArray[np.float32] | None,
    ) -> Detections:
        info, settings = self._info, self._settings
        boxes = found.boxes
        if info.layout is Layout.DETR:
            boxes = boxes * np.array([info.width, info.height] * 2, np.float32)
        if info.layout is not Layout.END2END:
            boxes = geometry.corners(boxes)
        real = geometry.has_area(boxes)
        found, boxes = found.take(real), boxes[real]
        if info.layout in NEEDS_NMS:
            class_ids = None if settings.agnostic else found.class_ids
            kept = nms(boxes, found.scores, class_ids, settings.iou, settings.max_detections)
        else:
            kept = by_score(found.scores)[: settings.max_detections]
        boxes = geometry.clip(placement.to_frame(boxes[kept]), placement.width, placement.height)
        real = geometry.has_area(boxes)
        found, boxes = found.take(kept[real]), boxes[real]
        masks = keypoints = None
        if prototypes is not None:
            size = (info.width, info.height)
            masks = cut_masks(found.extra, prototypes, boxes, placement, size)
        elif info.task is Task.POSE:
            keypoints = self._keypoints(found.extra, placement)
        return Detections(
            boxes=boxes,
            scores=np.clip(found.scores, 0, 1),
            class_ids=found.class_ids,
            masks=masks,
            keypoints=keypoints,
        )

    def _rotated(self, found: Candidates, placement: Placement) -> Detections:
        """Rotated boxes are cxcywh in both layouts: exporters leave them so."""
        settings = self._settings
        rotated = np.concatenate([found.boxes, found.extra], axis=1)
        real = (rotated[:, 2] > 0) & (rotated[:, 3] > 0)
        found, rotated = found.take(real), rotated[real]
        if self._info.layout in NEEDS_NMS:
            class_ids = None if settings.agnostic else found.class_ids
            kept = nms_rotated(
                rotated, found.scores, class_ids, settings.iou, settings.max_detections
            )
        else:
            kept = by_score(found.scores)[: settings.max_detections]
        rotated = geometry.rotated_to_frame(rotated[kept], placement)
        boxes = geometry.clip(geometry.upright(rotated), placement.width, placement.height)
        real = geometry.has_area(boxes)
        found = found.take(kept[real])
        return Detections(
            boxes=boxes[real],
            scores=np.clip(found.scores, 0, 1),
            class_ids=found.class_ids,
            rotated=rotated[real],
        )

    def _keypoints(self, extra: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
        assert self._info.keypoint_shape is not None
        points = extra.reshape(len(extra), *self._info.keypoint_shape)
        result = np.ones((*points.shape[:2], WITH_VISIBILITY), np.float32)
        frame = placement.to_frame(points[..., :2])
        result[..., :2] = geometry.clip(frame, placement.width, placement.height)
        if points.shape[2] == WITH_VISIBILITY:
            result[..., 2] = np.clip(points[..., 2], 0, 1)
        return result
