"""Builds small ONNX models of every task and layout, for tests.

The graphs are real: every value of their outputs depends on the picture, through a convolution with
seeded random weights over each cell of a grid. Boxes lie in the picture, scores in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.model import Layout, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STRIDES = (8, 16, 32)
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class _Kind:
    """What is asked for."""

    task: Task
    layout: Layout
    nc: int
    width: int
    height: int
    keypoints: tuple[int, int]
    prototypes: int

    @property
    def extra(self) -> int:
        """Values of a candidate after its scores."""
        points = self.keypoints[0] * self.keypoints[1]
        sizes = {Task.SEGMENT: self.prototypes, Task.POSE: points, Task.OBB: 1}
        return sizes.get(self.task, 0)

    @property
    def head(self) -> int:
        """Values before the extra ones."""
        return 4 + {Layout.ANCHOR: 1 + self.nc, Layout.END2END: 2}.get(self.layout, self.nc)

    @property
    def cells(self) -> int:
        """Cells of all grids."""
        return sum(-(-self.width // s) * -(-self.height // s) for s in STRIDES)


class _Graph:
    """Nodes and weights; every method returns the name of what it made."""

    def __init__(self, seed: int, dtype: np.dtype) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def const(self, values: object, dtype: object = None) -> str:
        name = f"w{len(self.weights)}"
        array = np.asarray(values, dtype or self.dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def cells(self, channels: int, stride: int) -> str:
        """A convolution over cells of `stride` pixels; its values spread over about -3..3."""
        weight = self.rng.normal(0, 2.5 / stride, (channels, 3, stride, stride))
        # Else a channel would have nearly one value in all cells, that of the mean brightness.
        weight -= 0.8 * weight.mean(axis=(1, 2, 3), keepdims=True)
        bias = self.rng.normal(0, 0.5, channels)
        inputs = ("images", self.const(weight), self.const(bias))
        return self.op("Conv", *inputs, strides=[stride] * 2, kernel_shape=[stride] * 2)

    def candidates(self, values: int, copies: int) -> str:
        """[B, values, N], each 0..1."""
        shape = self.const([0, values, -1], np.int64)
        levels = [self.op("Reshape", self.cells(values * copies, s), shape) for s in STRIDES]
        return self.op("Sigmoid", self.op("Concat", *levels, axis=2))

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        bounds = (self.const([n], np.int64) for n in (start, end, axis))
        return self.op("Slice", x, *bounds)


def make_model(
    path: Path,
    task: Task | str = Task.DETECT,
    layout: Layout | str = Layout.YOLO,
    *,
    nc: int = 3,
    size: int | tuple[int, int] = 64,
    batch: int | str = 1,
    dynamic_size: bool = False,
    declared: bool = True,
    metadata: bool | Mapping[str, str | None] = True,
    keypoints: tuple[int, int] = (5, 3),
    prototypes: int = 32,
    candidates: int = 20,
    half: bool = False,
    logits: bool = False,
    seed: int = 0,
) -> Path:
    """Write a model.

    Args:
        path: file to write.
        task: what it answers.
        layout: how its outputs lie; "classes" is implied by "classify".
        nc: number of classes.
        size: input side, or (width, height), in pixels; multiples of 32.
        batch: fixed batch size, or "dynamic".
        dynamic_size: height and width are open; boxes still lie inside `size`.
        declared: the outputs' shapes are written down as far as they are known.
        metadata: whether to write an exporter's metadata; or changes to it, None removing a key.
        keypoints: (number, values each) of a pose model.
        prototypes: number of mask prototypes of a segment model.
        candidates: K or Q of the end-to-end and DETR layouts, at most the number of cells.
        half: float16 throughout, with float16 input and outputs.
        logits: a classifier without softmax.
        seed: of the weights.

    Returns:
        `path`.
    """
    task, layout = Task(task), Layout(layout)
    if task is Task.CLASSIFY:
        layout = Layout.CLASSES
    width, height = (size, size) if isinstance(size, int) else size
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = _Graph(seed, np.dtype(np.float16 if half else np.float32))
    batch_size = "batch" if batch == "dynamic" else batch
    kind = _Kind(task, layout, nc, width, height, keypoints, prototypes)
    shape: list[int | str]
    if layout is Layout.CLASSES:
        shape = [nc]
        _classifier(graph, nc, logits=logits)
    else:
        _detector(graph, kind, candidates)
        number: int | str = candidates
        if layout in (Layout.YOLO, Layout.ANCHOR):
            number = kind.cells * (3 if layout is Layout.ANCHOR else 1)
            number = "anchors" if dynamic_size else number
        values = kind.head + kind.extra
        shape = [values, number] if layout is Layout.YOLO else [number, values]
    outputs = [("output0", [batch_size, *shape])]
    if task is Task.SEGMENT:
        graph.op(
            "Conv",
            graph.cells(prototypes, 4),
            graph.const(np.eye(prototypes)[:, :, None, None]),
            output="output1",
        )
        sides = ["mask_h", "mask_w"] if dynamic_size else [height // 4, width // 4]
        outputs.append(("output1", [batch_size, prototypes, *sides]))
    sides = ["height", "width"] if dynamic_size else [height, width]
    image = helper.make_tensor_value_info("images", element, [batch_size, 3, *sides])
    results = [
        helper.make_tensor_value_info(n, element, s if declared else None) for n, s in outputs
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "test", [image], results, graph.weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vigia-tests",
    )
    if metadata is not False:
        texts = _metadata(kind, batch)
        texts |= {} if metadata is True else dict(metadata)
        helper.set_model_props(model, {k: v for k, v in texts.items() if v is not None})
    path.write_bytes(model.SerializeToString())
    return path


def _classifier(graph: _Graph, nc: int, *, logits: bool) -> None:
    pooled = graph.op("GlobalAveragePool", graph.cells(nc, 8))
    scaled = graph.op("Mul", pooled, graph.const(4.0))
    flat = graph.op("Flatten", scaled, output="output0" if logits else "")
    if not logits:
        graph.op("Softmax", flat, axis=1, output="output0")


def _detector(graph: _Graph, kind: _Kind, candidates: int) -> None:
    """Append the main output."""
    values, head, layout = kind.head + kind.extra, kind.head, kind.layout
    x = graph.candidates(values, 3 if layout is Layout.ANCHOR else 1)
    scale, offset = _ranges(kind)
    x = graph.op("Add", graph.op("Mul", x, graph.const(scale)), graph.const(offset))
    if layout is Layout.END2END:
        matrix = np.eye(values)
        if kind.task is not Task.OBB:
            matrix[:2, 2:4] = np.eye(2) * -0.5
            matrix[2:4, :4] = np.concatenate([np.eye(2), np.eye(2) * 0.5], axis=1)
        x = graph.op("MatMul", graph.const(matrix), x)
        parts = [graph.slice(x, 0, 5, 1), graph.op("Floor", graph.slice(x, 5, 6, 1))]
        if kind.extra:
            parts.append(graph.slice(x, head, values, 1))
        x = graph.op("Concat", *parts, axis=1)
    if layout is Layout.YOLO:
        graph.op("Identity", x, output="output0")
        return
    if layout is not Layout.ANCHOR:
        x = graph.slice(x, 0, candidates, 2)
    graph.op("Transpose", x, perm=[0, 2, 1], output="output0")


def _ranges(kind: _Kind) -> tuple[np.ndarray, np.ndarray]:
    """Factor and offset [1, values, 1] that bring 0..1 to each value's range."""
    width, height = (1, 1) if kind.layout is Layout.DETR else (kind.width, kind.height)
    scale = np.ones(kind.head + kind.extra)
    offset = np.zeros_like(scale)
    scale[:4] = [width / 2, height / 2, width / 2, height / 2]
    offset[:2] = [width / 4, height / 4]
    if kind.layout is Layout.END2END:
        scale[5] = kind.nc * 0.999
    if kind.task is Task.SEGMENT:
        scale[kind.head :] = 2
        offset[kind.head :] = -1
    elif kind.task is Task.OBB:
        scale[-1] = np.pi / 2
    elif kind.task is Task.POSE:
        points = scale[kind.head :].reshape(kind.keypoints)
        points[:, :2] = width, height
    return scale.reshape(1, -1, 1), offset.reshape(1, -1, 1)


def _metadata(kind: _Kind, batch: int | str) -> dict[str, str | None]:
    texts: dict[str, str | None] = {
        "description": "rtdetr-test" if kind.layout is Layout.DETR else "test model",
        "task": kind.task.value,
        "names": str({i: f"thing{i}" for i in range(kind.nc)}),
        "stride": "1" if kind.task is Task.CLASSIFY else str(STRIDES[-1]),
        "imgsz": str([kind.height, kind.width]),
        "batch": "1" if batch == "dynamic" else str(batch),
        "end2end": str(kind.layout is Layout.END2END),
    }
    if kind.task is Task.POSE:
        texts["kpt_shape"] = str(list(kind.keypoints))
    return texts
