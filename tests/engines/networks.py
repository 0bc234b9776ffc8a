"""Small networks with what real ones have in them, and pictures for them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.describe import describe_model
from engines.onnxfile import ModelFile
from tests.bench.yolov8n import build

CONVEYOR = Path(__file__).parents[2] / "examples" / "conveyor" / "conveyor-n.onnx"


class Pictures:
    """Pictures of smooth random blobs, so that neighbouring pixels are alike as in real ones."""

    def __init__(self, count: int, side: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (count, side // 8, side // 8, 3), np.uint8)
        self.arrays = list(coarse.repeat(8, axis=1).repeat(8, axis=2))
        self.rounds = 0

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(b"".join(a.tobytes() for a in self.arrays)).hexdigest()

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self):
        self.rounds += 1
        return iter(self.arrays)


@functools.cache
def _yolo_bytes(side: int) -> bytes:
    return build(side)[0].SerializeToString()


def yolo(side: int = 64):
    """The YOLOv8n-sized network with random weights, and what `describe` says of it."""
    model = onnx.ModelProto.FromString(_yolo_bytes(side))
    return model, describe_model(ModelFile(Path("yolo.onnx"), "sha256:aa", model))


def model_of(nodes, arrays=(), inputs=None, outputs=("y",), opset=17):
    """A graph of these nodes; x is float32 [1, 4, 8, 8] unless `inputs` says otherwise."""
    value = helper.make_tensor_value_info
    inputs = inputs or {"x": [1, 4, 8, 8]}
    graph = helper.make_graph(
        nodes,
        "g",
        [value(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [value(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in dict(arrays).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    # The checker wants shapes of outputs.
    return onnx.shape_inference.infer_shapes(model)


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def run(model, feed):
    """Outputs of a model, checked first."""
    onnx.checker.check_model(model, full_check=True)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    if not isinstance(feed, dict):
        feed = {session.get_inputs()[0].name: feed}
    return session.run(None, feed)


@functools.cache
def _rounds_float16() -> bool:
    graph = helper.make_graph(
        [node("QuantizeLinear", "x scale zero", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1])],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [1])],
        [numpy_helper.from_array(np.float16(1), "scale"),
         numpy_helper.from_array(np.int8(0), "zero")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    return int(run(model, np.array([0.75], np.float16))[0][0]) == 1


def can_be_judged(kind: str) -> None:
    """Skip what this ONNX Runtime cannot judge.

    1.23, the last one for Python 3.10, truncates where QuantizeLinear of float16 must round: half a
    step lost at every tensor. Only TensorRT is ever given such graphs; here they are only judged.
    """
    if kind == "fp16_qdq" and not _rounds_float16():
        pytest.skip(f"ONNX Runtime {ort.__version__} truncates what float16 quantises to")


def snr_db(reference, value):
    noise = np.square(np.subtract(reference, value, dtype=np.float64)).sum()
    return 10 * np.log10(np.square(reference, dtype=np.float64).sum() / max(noise, 1e-30))


def by_name(model):
    return {n.name: n for n in model.graph.node}


def attention():
    """x [1, 5, 8] -> layer normalisation in pieces, as exported -> attention -> linear layer."""
    rng = np.random.default_rng(3)
    arrays = {
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "gamma": rng.normal(1, 0.1, 8).astype("f"),
        "beta": rng.normal(0, 0.1, 8).astype("f"),
        "wq": rng.normal(0, 0.3, (8, 8)).astype("f"),
        "wk": rng.normal(0, 0.3, (8, 8)).astype("f"),
        "wv": rng.normal(0, 0.3, (8, 8)).astype("f"),
        "wo": rng.normal(0, 0.3, (8, 3)).astype("f"),
    }
    nodes = [
        node("ReduceMean", "x", "mean", axes=[-1]),
        node("Sub", "x mean", "centred"),
        node("Pow", "centred two", "squares"),
        node("ReduceMean", "squares", "variance", axes=[-1]),
        node("Add", "variance eps", "safe"),
        node("Sqrt", "safe", "deviation"),
        node("Div", "centred deviation", "normal"),
        node("Mul", "normal gamma", "scaled"),
        node("Add", "scaled beta", "shifted"),
        node("MatMul", "shifted wq", "q"),
        node("MatMul", "shifted wk", "k"),
        node("MatMul", "shifted wv", "v"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "scores"),
        node("Softmax", "scores", "shares", axis=-1),
        node("MatMul", "shares v", "mixed"),
        node("Add", "mixed x", "residual"),
        node("MatMul", "residual wo", "y"),
    ]
    return model_of(nodes, arrays, {"x": [1, 5, 8]})
