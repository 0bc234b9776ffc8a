"""Builds an ONNX graph of YOLOv8n's size with random weights, for benchmarks only.

The graph has the published shape of that network (3.2 M parameters, about 8.7 GFLOP at 640x640,
output [1, 84, 8400]), so that figures compare with the world's; it detects nothing.

    python tests/bench/yolov8n.py OUT.onnx [--size 640]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 80
BINS = 16
"""Distance bins of the distribution that each box side is read from."""
STRIDES = (8, 16, 32)
QUIET_CLASS_BIAS = -9.0
"""Keeps random class scores near 1e-4, so that few anchors are candidates, as in a real scene."""
QUIET_CLASS_GAIN = 0.001
"""Factor on the class layers' weights, to the same end."""


class Builder:
    """Collects nodes and weights; every method returns the name of what it made."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"images": 3}
        self.multiply_adds = 0
        self.sizes: dict[str, int] = {}
        self.count = 0

    def op(self, kind: str, inputs: list[str], channels: int, size: int, **attrs: object) -> str:
        """Append one node."""
        self.count += 1
        out = f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **attrs))
        self.channels[out], self.sizes[out] = channels, size
        return out

    def const(self, array: np.ndarray) -> str:
        """Append one initializer."""
        self.count += 1
        name = f"w_{self.count}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self,
        x: str,
        out: int,
        k: int,
        stride: int = 1,
        *,
        bias: float | None = None,
        gain: float = 1.0,
    ) -> str:
        """Convolution; followed by SiLU unless `bias` is given (a head's last layer)."""
        c, size = self.channels[x], self.sizes[x] // stride
        scale = np.sqrt(1.0 / (c * k * k)) if bias is not None else np.sqrt(2.9 / (c * k * k))
        values = self.rng.standard_normal((out, c, k, k)) * scale * gain
        weight = self.const(values.astype(np.float32))
        offset = self.const(np.full(out, bias or 0.0, np.float32))
        self.multiply_adds += out * c * k * k * size * size
        p = k // 2
        attrs = {"kernel_shape": [k, k], "strides": [stride] * 2, "pads": [p] * 4}
        y = self.op("Conv", [x, weight, offset], out, size, **attrs)
        if bias is not None:
            return y
        gate = self.op("Sigmoid", [y], out, size)
        return self.op("Mul", [y, gate], out, size)

    def concat(self, *parts: str) -> str:
        """Join along channels."""
        channels = sum(self.channels[p] for p in parts)
        return self.op("Concat", list(parts), channels, self.sizes[parts[0]], axis=1)

    def split(self, x: str) -> tuple[str, str]:
        """Cut the channels into halves."""
        half = self.channels[x] // 2
        self.count += 1
        outs = [f"split_{self.count}_{i}" for i in range(2)]
        sizes = self.const(np.array([half, half], np.int64))
        self.nodes.append(helper.make_node("Split", [x, sizes], outs, axis=1))
        for out in outs:
            self.channels[out], self.sizes[out] = half, self.sizes[x]
        return outs[0], outs[1]

    def stage(self, x: str, out: int, repeats: int, *, shortcut: bool) -> str:
        """A cross-stage block: split, `repeats` bottlenecks one after another, join all."""
        first, y = self.split(self.conv(x, out, 1))
        parts = [first, y]
        for _ in range(repeats):
            z = self.conv(self.conv(y, out // 2, 3), out // 2, 3)
            y = self.op("Add", [y, z], out // 2, self.sizes[y]) if shortcut else z
            parts.append(y)
        return self.conv(self.concat(*parts), out, 1)

    def pooled(self, x: str, out: int) -> str:
        """Spatial pyramid pooling: three 5x5 max pools in a row, joined."""
        parts = [self.conv(x, out // 2, 1)]
        for _ in range(3):
            attrs = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2] * 4}
            parts.append(self.op("MaxPool", [parts[-1]], out // 2, self.sizes[parts[-1]], **attrs))
        return self.conv(self.concat(*parts), out, 1)

    def upsampled(self, x: str) -> str:
        """Nearest neighbour, twice the size."""
        scales = self.const(np.array([1, 1, 2, 2], np.float32))
        return self.op(
            "Resize", [x, "", scales], self.channels[x], self.sizes[x] * 2, mode="nearest"
        )

    def reshaped(self, x: str, shape: list[int], channels: int) -> str:
        """Reshape."""
        return self.op("Reshape", [x, self.const(np.array(shape, np.int64))], channels, 0)


def _anchors(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell centres [1, 2, N] in cells, and strides [1, N] in pixels."""
    points, strides = [], []
    for stride in STRIDES:
        n = size // stride
        y, x = np.mgrid[0:n, 0:n]
        points.append(np.stack([x.ravel(), y.ravel()]) + 0.5)
        strides.append(np.full(n * n, stride))
    return (
        np.concatenate(points, 1)[None].astype(np.float32),
        np.concatenate(strides)[None].astype(np.float32),
    )


def build(size: int = 640, seed: int = 0) -> tuple[onnx.ModelProto, float]:
    """Make the graph.

    Returns:
        The model, and its cost in GFLOP (two for each multiply-add of its convolutions).
    """
    b = Builder(seed)
    b.sizes["images"] = size
    x = b.conv(b.conv("images", 16, 3, 2), 32, 3, 2)
    x = b.stage(x, 32, 1, shortcut=True)
    p3 = b.stage(b.conv(x, 64, 3, 2), 64, 2, shortcut=True)
    p4 = b.stage(b.conv(p3, 128, 3, 2), 128, 2, shortcut=True)
    p5 = b.pooled(b.stage(b.conv(p4, 256, 3, 2), 256, 1, shortcut=True), 256)
    n4 = b.stage(b.concat(b.upsampled(p5), p4), 128, 1, shortcut=False)
    n3 = b.stage(b.concat(b.upsampled(n4), p3), 64, 1, shortcut=False)
    o4 = b.stage(b.concat(b.conv(n3, 64, 3, 2), n4), 128, 1, shortcut=False)
    o5 = b.stage(b.concat(b.conv(o4, 128, 3, 2), p5), 256, 1, shortcut=False)

    sides, scores = [], []
    for level in (n3, o4, o5):
        box = b.conv(b.conv(b.conv(level, 64, 3), 64, 3), 4 * BINS, 1, bias=1.0)
        cls = b.conv(b.conv(level, 80, 3), 80, 3)
        cls = b.conv(cls, CLASSES, 1, bias=QUIET_CLASS_BIAS, gain=QUIET_CLASS_GAIN)
        cells = b.sizes[level] ** 2
        sides.append(b.reshaped(box, [1, 4 * BINS, cells], 4 * BINS))
        scores.append(b.reshaped(cls, [1, CLASSES, cells], CLASSES))
    boxes = b.op("Concat", sides, 4 * BINS, 0, axis=2)
    classes = b.op("Sigmoid", [b.op("Concat", scores, CLASSES, 0, axis=2)], CLASSES, 0)

    points, strides = _anchors(size)
    n = points.shape[2]
    bins = b.op("Transpose", [b.reshaped(boxes, [1, 4, BINS, n], 4)], BINS, 0, perm=[0, 2, 1, 3])
    weights = b.op("Softmax", [bins], BINS, 0, axis=1)
    expectation = b.const(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    distance = b.op("Conv", [weights, expectation], 1, 0)
    distance = b.reshaped(distance, [1, 4, n], 4)
    left_top, right_bottom = b.split(distance)
    anchor = b.const(points)
    low = b.op("Sub", [anchor, left_top], 2, 0)
    high = b.op("Add", [anchor, right_bottom], 2, 0)
    half = b.const(np.float32(0.5).reshape(1))
    centre = b.op("Mul", [b.op("Add", [low, high], 2, 0), half], 2, 0)
    extent = b.op("Sub", [high, low], 2, 0)
    cxcywh = b.op("Concat", [centre, extent], 4, 0, axis=1)
    pixels = b.op("Mul", [cxcywh, b.const(strides)], 4, 0)
    b.nodes.append(helper.make_node("Concat", [pixels, classes], ["output0"], axis=1))

    shape = [1, 3, size, size]
    graph = helper.make_graph(
        b.nodes,
        "yolov8n-sized",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + CLASSES, n])],
        b.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = {
        "task": "detect",
        "stride": "32",
        "imgsz": str([size, size]),
        "batch": "1",
        "names": str({i: f"class{i}" for i in range(CLASSES)}),
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model, 2 * b.multiply_adds / 1e9


def main() -> None:
    """Write the file and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=640)
    args = parser.parse_args()
    model, gflop = build(args.size)
    onnx.save(model, args.out)
    parameters = sum(int(np.prod(w.dims)) for w in model.graph.initializer)
    print(f"{args.out}: {gflop:.2f} GFLOP, {parameters / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
