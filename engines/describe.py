"""Finds out what an ONNX file is: task, layout, classes, input size.

What the configuration says comes first, then the file's metadata, then what its shapes allow; each
fact that only the shapes told is listed in `ModelInfo.inferred`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from engines.base import TensorSpec
from engines.errors import UnsupportedModelError
from engines.layouts import ACCEPTED, Hints, Reading, read_detector, show
from engines.metadata import Metadata, check_names, read_metadata
from engines.model import Layout, ModelInfo, Resize, Task
from engines.onnxfile import ModelFile, image_inputs, infer_output_shapes, read_model, shape_of
from engines.weights import is_normalised, precision_of

if TYPE_CHECKING:
    from pathlib import Path

    from engines.onnxfile import Shape

DEFAULT_SIDE = 640
"""Input width and height, in pixels, of a dynamic model that says nothing."""

DEFAULT_STRIDE = 32
"""Largest stride, in pixels, of a model that says nothing."""

MAX_SIDE = 8192
"""Largest input width or height, in pixels."""

DEFAULT_PROTOTYPES = 32

IMAGE_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.UINT8: np.dtype(np.uint8),
}

IMAGE_RANK = 4
CHANNELS = 3
DETECTOR_RANK = 3
CLASSIFIER_RANK = 2


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the configuration says of a model; None where it leaves it to the file.

    Attributes:
        task: what it answers.
        layout: how its outputs lie.
        names: class names by class id.
        resize: how a frame becomes an input.
        width: input width in pixels, for a model of dynamic size.
        height: input height in pixels, likewise.
        mean: subtracted from RGB scaled to 0..1, per channel.
        std: divisor after `mean`, per channel.
        name: the model's name in messages.
    """

    task: Task | None = None
    layout: Layout | None = None
    names: tuple[str, ...] | None = None
    resize: Resize | None = None
    width: int | None = None
    height: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    name: str | None = None


def describe(path: Path | str, overrides: Overrides | None = None) -> ModelInfo:
    """Read a model file and say what it is.

    Args:
        path: the ONNX file.
        overrides: what is known better than by the file.

    Raises:
        ModelFileError: the file cannot be read or is no self-contained ONNX file.
        UnsupportedModelError: its inputs or outputs are not understood, or in more than one way.
    """
    return describe_model(read_model(path), overrides)


def describe_model(file: ModelFile, overrides: Overrides | None = None) -> ModelInfo:
    """As `describe`, for a file that was read already.

    Raises:
        UnsupportedModelError: see `describe`.
    """
    try:
        return _Description(file, overrides or Overrides()).info()
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{file.path}: {error}") from error


class _Description:
    """Collects the facts of one model in the order in which they depend on each other."""

    def __init__(self, file: ModelFile, overrides: Overrides) -> None:
        self.file = file
        self.model = file.model
        self.overrides = overrides
        self.metadata: Metadata = read_metadata(
            self.model, task=overrides.task is None, names=overrides.names is None
        )
        self.inferred = list(self.metadata.ignored)

    def info(self) -> ModelInfo:
        over = self.overrides
        image = self.image()
        batch = image.shape[0]
        stride = self.metadata.stride or DEFAULT_STRIDE
        width, height = self.size(image, stride)
        outputs = self.outputs((batch, CHANNELS, height, width))
        names = over.names if over.names is not None else self.metadata.names
        if names is not None:
            try:
                names = check_names(list(names))
            except ValueError as error:
                raise UnsupportedModelError(
                    f"the class names are {error}; correct models.<slot>.names"
                ) from error
        reading = self.reading(outputs, batch, (width, height), names)
        classes = reading.classes if names is None else len(names)
        if names is None:
            names = tuple(f"class{i}" for i in range(classes or 0))
            self.inferred.append(f"names: invented, {names[0]!r} to {names[-1]!r}")
        classify = reading.task is Task.CLASSIFY
        logits = classify and not is_normalised(self.model, _first(outputs, CLASSIFIER_RANK))
        if logits:
            self.inferred.append("scores: softmax is applied, the graph does not end in one")
        if classify and over.mean is None and self.metadata.task is None:
            self.inferred.append("input: RGB scaled to 0..1, without mean and standard deviation")
        return ModelInfo(
            name=over.name or self.file.path.stem,
            digest=self.file.digest,
            task=reading.task,
            layout=reading.layout,
            names=names,
            input=image,
            outputs=outputs,
            height=height,
            width=width,
            max_batch=batch,
            resize=over.resize or _default_resize(reading),
            stride=stride,
            keypoint_shape=reading.keypoint_shape,
            mean=over.mean or (0.0, 0.0, 0.0),
            std=_checked_std(over.std),
            logits=logits,
            precision=precision_of(self.model),
            inferred=tuple(self.inferred),
        )

    def image(self) -> TensorSpec:
        """The one input, which must be a batch of colour pictures, channels first."""
        inputs = image_inputs(self.model)
        shapes = [shape_of(i) for i in inputs]
        found = ", ".join(f"{i.name} {show(s)}" for i, s in zip(inputs, shapes, strict=True))
        shape = shapes[0] if len(inputs) == 1 else None
        if shape is None or len(shape) != IMAGE_RANK or shape[1] not in (CHANNELS, None):
            raise UnsupportedModelError(
                f"its inputs are {found or 'missing'}; "
                f"one image input [B, {CHANNELS}, H, W] is understood"
            )
        element = inputs[0].type.tensor_type.elem_type
        if element not in IMAGE_TYPES:
            raise UnsupportedModelError(
                f"its input {inputs[0].name!r} has type {TensorProto.DataType.Name(element)}; "
                "export the model with a float32, float16 or uint8 image input"
            )
        return TensorSpec(inputs[0].name, (shape[0], CHANNELS, *shape[2:]), IMAGE_TYPES[element])

    def size(self, image: TensorSpec, stride: int) -> tuple[int, int]:
        """Width and height to run at."""
        over, said = self.overrides, self.metadata.size
        height = self._side("height", image.shape[2], over.height, said and said[1], stride)
        width = self._side("width", image.shape[3], over.width, said and said[0], stride)
        return width, height

    def _side(
        self, which: str, fixed: int | None, wanted: int | None, said: int | None, stride: int
    ) -> int:
        key = f"models.<slot>.input_{which}"
        if fixed is not None:
            if wanted not in (None, fixed):
                raise UnsupportedModelError(
                    f"its input {which} is fixed at {fixed}, but {key} is {wanted}; "
                    "remove it, or export the model with dynamic=True"
                )
            side = fixed
        else:
            side = wanted or said or DEFAULT_SIDE
            if wanted is None and said is None:
                self.inferred.append(f"input {which}: {DEFAULT_SIDE}, the file leaves it open")
            if side % stride:
                near = max(stride, round(side / stride) * stride)
                raise UnsupportedModelError(
                    f"its input {which} {side} is not a multiple of its stride {stride}; "
                    f"set {key} to {near}"
                )
        if side > MAX_SIDE:
            raise UnsupportedModelError(f"its input {which} is {side}; {MAX_SIDE} is the most")
        return side

    def outputs(self, sizes: Shape) -> tuple[TensorSpec, ...]:
        """Names, types and shapes; open sizes worked out for the input size where possible."""
        shapes = {o.name: shape_of(o) for o in self.model.graph.output}
        if any(s is None or None in s[1:] for s in shapes.values()):
            inferred = infer_output_shapes(self.model, (sizes[0] or 1, *sizes[1:]))
            shapes = {n: _merged(s, inferred[n], sizes[0]) for n, s in shapes.items()}
        specs = []
        for output in self.model.graph.output:
            shape = shapes[output.name]
            if shape is None:
                raise UnsupportedModelError(
                    f"the shape of its output {output.name!r} cannot be told; export the model "
                    "with fixed sizes, or run it through ONNX shape inference"
                )
            element = output.type.tensor_type.elem_type
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))
            specs.append(TensorSpec(output.name, shape, dtype))
        return tuple(specs)

    def reading(
        self,
        outputs: tuple[TensorSpec, ...],
        batch: int | None,
        size: tuple[int, int],
        names: tuple[str, ...] | None,
    ) -> Reading:
        """Task, layout and number of classes."""
        over, meta = self.overrides, self.metadata
        task = over.task or meta.task
        shown = ", ".join(f"{o.name} {show(o.shape)}" for o in outputs)
        count = None if names is None else len(names)
        by_rank = {
            rank: [o for o in outputs if len(o.shape) == rank and _batches(o, batch)]
            for rank in (CLASSIFIER_RANK, DETECTOR_RANK, IMAGE_RANK)
        }
        detectors, maps = by_rank[DETECTOR_RANK], by_rank[IMAGE_RANK]
        if len(detectors) == 1 and len(maps) <= 1:
            prototypes = (maps[0].shape[1] or DEFAULT_PROTOTYPES) if maps else None
            hints = Hints(task, over.layout, count, meta.keypoint_shape, meta.end2end, meta.detr)
            reading = read_detector(detectors[0].shape, prototypes, size, hints, shown=shown)
        elif not detectors and len(outputs) == len(by_rank[CLASSIFIER_RANK]) == 1:
            reading = self._classifier(outputs[0], task, count)
        else:
            raise UnsupportedModelError(f"its output is {shown}, not understood; {ACCEPTED}")
        if task is None:
            alike = " (pose and obb can look the same)" if reading.layout is Layout.YOLO else ""
            self.inferred.append(f"task: {reading.task.value}, from the outputs' shapes{alike}")
        if over.layout is None and count is None:
            self.inferred.append(f"layout: {reading.layout.value}, from the outputs' shapes")
        if reading.keypoint_shape is not None and meta.keypoint_shape is None:
            points = "{} of {} values each".format(*reading.keypoint_shape)
            self.inferred.append(f"keypoints: {points}, from the outputs' shapes")
        return reading

    def _classifier(self, output: TensorSpec, task: Task | None, count: int | None) -> Reading:
        shown = f"{output.name} {show(output.shape)}"
        classes = output.shape[1] or count
        others = task not in (None, Task.CLASSIFY) or self.overrides.layout not in (
            None,
            Layout.CLASSES,
        )
        # Suppression in the graph that gives rows instead of scores is another, unknown layout.
        if others or any(n.op_type == "NonMaxSuppression" for n in self.model.graph.node):
            raise UnsupportedModelError(f"its output is {shown}, not understood; {ACCEPTED}")
        if classes is None:
            raise UnsupportedModelError(
                f"its output {shown} does not tell how many classes there are; "
                "set models.<slot>.names"
            )
        if count not in (None, classes):
            raise UnsupportedModelError(
                f"it has {count} class names, but its output {shown} has {classes} classes; "
                "correct models.<slot>.names"
            )
        return Reading(Task.CLASSIFY, Layout.CLASSES, classes)


def _default_resize(reading: Reading) -> Resize:
    if reading.layout is Layout.DETR:
        return Resize.STRETCH
    return Resize.CENTER_CROP if reading.task is Task.CLASSIFY else Resize.LETTERBOX


def _checked_std(std: tuple[float, float, float] | None) -> tuple[float, float, float]:
    if std is not None and min(std) <= 0:
        raise UnsupportedModelError("models.<slot>.std must be greater than 0 in every channel")
    return std or (1.0, 1.0, 1.0)


def _first(outputs: tuple[TensorSpec, ...], rank: int) -> str:
    return next((o.name for o in outputs if len(o.shape) == rank), "")


def _batches(output: TensorSpec, batch: int | None) -> bool:
    """Whether the first size of an output can be the batch's."""
    return batch is None or output.shape[0] in (None, batch)


def _merged(declared: Shape | None, inferred: Shape | None, batch: int | None) -> Shape | None:
    """What the file says, completed by what was worked out for a batch of one or of `batch`."""
    if declared is None:
        return inferred and (batch, *inferred[1:])
    if inferred is None or len(declared) != len(inferred):
        return declared
    rest = zip(declared[1:], inferred[1:], strict=True)
    return (declared[0], *(i if d is None else d for d, i in rest))
