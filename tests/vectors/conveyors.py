"""Variants of examples/conveyor/conveyor-n.onnx, good and bad, and its golden set, for tests.

All are whole ONNX files that pass every check of their form: what is wrong with the bad ones shows
only when they run.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.vectors.bundles import CONVEYOR, CONVEYOR_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SAMPLE = CONVEYOR.parent / "sample.mp4"
TRUTH = CONVEYOR.parent / "sample.json"

HALVING = 0.8
"""Weights are changed by so much of their spread; leaves about half of the mAP."""


def original() -> bytes:
    """The model as it is."""
    return CONVEYOR.read_bytes()


def retrained() -> bytes:
    """Another digest, the same answers: what a good update looks like."""
    return revised("2")


def revised(revision: str) -> bytes:
    """As `retrained`; each revision has a digest of its own."""
    model = onnx.load_from_string(original())
    model.metadata_props.add(key="revision", value=revision)
    return model.SerializeToString()


def renumbered() -> bytes:
    """The same answers, with the classes in another order."""
    order = [2, 0, 3, 1]

    def turn(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values[order] if ".scores.2." in name else values

    model = _changed(turn)
    names = {number: CONVEYOR_NAMES[of] for number, of in enumerate(order)}
    for entry in model.metadata_props:
        if entry.key == "names":
            entry.value = repr(names)
    return model.SerializeToString()


def halved(share: float = HALVING) -> bytes:
    """Finds about half of what it should: its heads' weights are disturbed."""
    random = np.random.default_rng(0)

    def disturb(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not name.startswith("heads.") or values.ndim < 4:
            return values
        noise = random.normal(0, share * float(values.std()), values.shape)
        return (values + noise).astype(np.float32)

    return _changed(disturb).SerializeToString()


def not_a_number() -> bytes:
    """Answers NaN: one weight is."""

    def spoil(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if name == "heads.0.scores.2.weight":
            values = values.copy()
            values.flat[0] = np.nan
        return values

    return _changed(spoil).SerializeToString()


def slow(layers: int = 4, channels: int = 32) -> bytes:
    """The same answers, several times as late: dead weight at the input.

    Convolutions whose result is added to the picture times 1e-20: no optimiser may leave it out.
    """
    model = onnx.load_from_string(original())
    graph = model.graph
    random = np.random.default_rng(0)
    weights, nodes, at = [], [], "images"
    widths = [3, *[channels] * (layers - 1), 3]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        weight = random.normal(0, 0.05, (outputs, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"dead.{number}"))
        nodes.append(
            helper.make_node("Conv", [at, f"dead.{number}"], [f"dead_{number}"], pads=[1] * 4)
        )
        at = f"dead_{number}"
    weights.append(numpy_helper.from_array(np.float32(1e-20), "dead.scale"))
    nodes.append(helper.make_node("Mul", [at, "dead.scale"], ["dead_scaled"]))
    nodes.append(helper.make_node("Add", ["images", "dead_scaled"], ["images_late"]))
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "images":
                node.input[place] = "images_late"
    kept = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
    return model.SerializeToString()


def hungry(gib: int = 256) -> bytes:
    """Asks for more memory than there is as soon as it runs."""
    model = onnx.load_from_string(original())
    graph = model.graph
    shape = np.array([gib * 2**28], np.int64)
    graph.initializer.extend(
        [
            numpy_helper.from_array(shape, "much.shape"),
            numpy_helper.from_array(np.float32(0), "much.scale"),
            numpy_helper.from_array(np.array([0, 0, 0, 0], np.int64), "much.starts"),
            numpy_helper.from_array(np.array([1, 1, 1, 1], np.int64), "much.ends"),
            numpy_helper.from_array(np.array([1], np.int64), "much.one"),
        ]
    )
    nodes = [
        # From the picture, so that it is not worked out when the model is loaded.
        helper.make_node("Slice", ["images", "much.starts", "much.ends"], ["much_pixel"]),
        helper.make_node("Reshape", ["much_pixel", "much.one"], ["much_value"]),
        helper.make_node("Expand", ["much_value", "much.shape"], ["much"]),
        helper.make_node("ReduceMax", ["much"], ["much_most"], keepdims=0),
        helper.make_node("Mul", ["much_most", "much.scale"], ["much_scaled"]),
        helper.make_node("Add", ["images", "much_scaled"], ["images_late"]),
    ]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "images":
                node.input[place] = "images_late"
    kept = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(kept)
    return model.SerializeToString()


def golden(count: int = 24) -> dict[str, bytes]:
    """Frames of the sample video and what is in them, by their places in a bundle."""
    truth = json.loads(TRUTH.read_text("utf-8"))
    frames = truth.pop("frames")
    chosen = [number * len(frames) // count for number in range(count)]
    files: dict[str, bytes] = {}
    pictures: dict[str, list[list[int]]] = {}
    capture = cv2.VideoCapture(str(SAMPLE))
    try:
        for number in range(len(frames)):
            pixels = capture.read()[1]
            if number in chosen:
                name = f"{number:05d}.png"
                files[f"golden/{name}"] = cv2.imencode(".png", pixels)[1].tobytes()
                pictures[name] = frames[number]
    finally:
        capture.release()
    files["truth.json"] = json.dumps({**truth, "pictures": pictures}).encode()
    return files


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file in a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _changed(
    change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]],
) -> onnx.ModelProto:
    model = onnx.load_from_string(original())
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = change(tensor.name, numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    return model
