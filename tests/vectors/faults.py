"""The conveyor model with one fault, as exports really have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

CONVEYOR = Path(__file__).parents[2] / "examples/conveyor"
MODEL = CONVEYOR / "conveyor-n.onnx"
SAMPLE = CONVEYOR / "sample.mp4"


def _first_conv(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Conv")


def _weights(
    model: onnx.ModelProto, name: str, change: Callable[[NDArray], NDArray]
) -> onnx.ModelProto:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = np.ascontiguousarray(change(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


def _before(model: onnx.ModelProto, op: str, constant: object) -> onnx.ModelProto:
    """One node between the image and whatever takes it."""
    graph = model.graph
    image = graph.input[0].name
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = "prepared"
    graph.initializer.append(numpy_helper.from_array(np.asarray(constant, np.float32), "constant"))
    graph.node.insert(0, helper.make_node(op, [image, "constant"], ["prepared"], name=f"/pre/{op}"))
    return model


def swapped_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Trained on BGR."""
    return _weights(model, _first_conv(model).input[1], lambda w: w[:, ::-1])


def wants_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Trained on 0..255: the agent's 0..1 is missing a factor."""
    return _weights(model, _first_conv(model).input[1], lambda w: w / 255)


def gets_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Is given 0..255 where it was trained on 0..1."""
    return _weights(model, _first_conv(model).input[1], lambda w: w * 255)


def divides(model: onnx.ModelProto) -> onnx.ModelProto:
    """Scales 0..255 to 0..1 by itself."""
    return _before(model, "Div", 255.0)


def multiplies(model: onnx.ModelProto) -> onnx.ModelProto:
    """As `divides`, in other words."""
    return _before(model, "Mul", 1 / 255)


def subtracts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Subtracts a mean by itself."""
    return _before(model, "Sub", np.full((1, 3, 1, 1), 0.45))


def perturbed(model: onnx.ModelProto) -> onnx.ModelProto:
    """One layer in the middle of the network has other weights."""
    node = next(n for n in model.graph.node if n.op_type == "Conv" and "down16" in n.name)
    return _weights(model, node.input[1], lambda w: w * 1.5)


def not_a_number(model: onnx.ModelProto) -> onnx.ModelProto:
    """The training diverged."""

    def spoil(weights: NDArray) -> NDArray:
        spoiled = weights.copy()
        spoiled.flat[3] = np.nan
        return spoiled

    return _weights(model, _first_conv(model).input[1], spoil)


def dead(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every second channel of every layer is pruned."""
    for node in model.graph.node:
        if node.op_type == "Conv":

            def prune(weights: NDArray) -> NDArray:
                pruned = weights.copy()
                pruned[::2] = 0
                return pruned

            _weights(model, node.input[1], prune)
    return model


def faulty(fault: Callable[[onnx.ModelProto], onnx.ModelProto], path: Path) -> Path:
    """Write the model with a fault."""
    path.write_bytes(fault(onnx.load(MODEL)).SerializeToString())
    return path
