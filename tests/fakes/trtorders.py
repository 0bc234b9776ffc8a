"""Graphs and orders for tests of TensorRT builds."""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.trt.api import TrtApi
from engines.trt.build import Ranges, build
from engines.trt.order import Order
from tests.engines.graphs import convolution
from tests.fakes.tensorrt.release import make

STATIC = ((1, 3, 8, 8),) * 3
OPEN = ((1, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8))


def api(version, tell=None):
    return TrtApi(make(version), tell)


def order(route, shape=STATIC, **changes):
    return Order(route, {"images": shape}, **changes)


def quantised(zero=0, scale=0.02):
    """images -> Q/DQ -> conv with quantised weights -> output0."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "s": np.float32(scale),
        "z": np.int8(zero),
        "ws": np.full(4, 0.03, np.float32),
        "wz": np.zeros(4, np.int8),
    }
    make_node = helper.make_node
    nodes = [
        make_node("QuantizeLinear", ["images", "s", "z"], ["xq"], "q"),
        make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dq"),
        make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], "wquant", axis=0),
        make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], "wdequant", axis=0),
        make_node("Conv", ["xd", "wd"], ["output0"], "conv", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def half():
    """The convolution in typed float16, opset 19."""
    model = convolution(TensorProto.FLOAT16)
    model.opset_import[0].version = 19
    return model


def named():
    """The convolution with named nodes."""
    model = convolution()
    for node in model.graph.node:
        node.name = f"/model/{node.op_type}"
    return model


GRAPHS: dict[str, object] = {
    "fp32": named,
    "fp16": half,
    "qdq": quantised,
    "fp16_qdq": quantised,
}
"""A graph for each variant; `fp16_qdq` need not be half for what a builder checks."""


def content(route) -> bytes:
    model: onnx.ModelProto = GRAPHS[route.graph]()
    return model.SerializeToString()


def build_here(job, tell):
    """`engines.trt.process.run` without a process, for tests that are not about it."""
    made = api(os.environ["VIGIA_FAKE_TENSORRT"])
    ranges = Ranges(cache=job.cache)
    plan, figures = build(
        made, job.order, job.model, job.board, job.free_bytes, ranges=ranges, tell=tell
    )
    return plan, {**figures, "plan_bytes": len(plan)}
