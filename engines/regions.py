"""Which parts of a model stay in floating point, told by where they lie, never by their kind alone.

A detector's last layers put values of very different ranges side by side: coordinates of hundreds
of pixels and scores of 0..1. One int8 scale for both leaves nothing of the scores. The layers
before them are no such problem, of whatever kind they are. See docs/precision.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.weights import WEIGHTED
from engines.wiring import Wiring

if TYPE_CHECKING:
    import onnx

UNSTABLE = frozenset(
    {
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "RMSNormalization",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Sqrt",
    }
)
"""Operations that square, sum or exponentiate: their intermediate values leave float16's range, and
eight bits are too few for their results."""

POINTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Neg", "Sub"})
"""What a normalisation that was exported in pieces has between its unstable operations."""

RESHAPING = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operations that move values without changing them."""

SIZES = frozenset({"Shape", "Size"})
"""Operations that look at a tensor's form only; nothing that its values are goes through them."""


def is_weighted(node: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether a node is a Conv, ConvTranspose, Gemm or MatMul with constant float weights."""
    place = WEIGHTED.get(node.op_type)
    return place is not None and len(node.input) > place and wiring.is_float(node.input[place])


def head(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that an int8 engine leaves in floating point.

    On every path back from an output: everything up to the first node with weights, and that node.
    A node with weights that only takes the expectation over a softmax, as YOLO's distance
    distributions do, is no more than decoding: the walk goes on from it. Unstable regions are
    added.
    """
    after, ends = _walk(model)
    return frozenset(after | ends) | sensitive(model)


def last(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the last layers with weights on the paths to the outputs."""
    return frozenset(_walk(model)[1])


def tail(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes behind the last layers with weights: decoding of boxes and scores."""
    return frozenset(_walk(model)[0])


def sensitive(model: onnx.ModelProto) -> frozenset[str]:
    """Names of nodes in softmax, power and normalisation regions.

    A normalisation in pieces, (x - mean) / sqrt(mean((x - mean)^2) + eps) * gamma + beta, is one
    region: the pointwise nodes between its unstable ones, the division, and what scales and shifts
    its result.
    """
    wiring = Wiring(model.graph)
    names: set[str] = set()
    for node in model.graph.node:
        if node.op_type in UNSTABLE:
            names.add(node.name)
            names |= _between(node, wiring)
            names |= _ending(node, wiring)
    return frozenset(names)


def full(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the nodes that stay float32 in a float16 graph.

    Decoding behind the last layers with weights, because float16 tells pixel coordinates above 512
    apart in steps of half a pixel; unstable regions; and what lies between such nodes only, where
    two casts would cost more than is saved.
    """
    wiring = Wiring(model.graph)
    found = set(tail(model) | sensitive(model))
    size = -1
    while len(found) > size:
        size = len(found)
        for node in model.graph.node:
            near = [*wiring.parents(node), *wiring.children(node)]
            both = wiring.parents(node) and wiring.children(node)
            if both and all(other.name in found for other in near):
                found.add(node.name)
    return frozenset(found)


def _walk(model: onnx.ModelProto) -> tuple[set[str], set[str]]:
    """Names of what lies behind the last layers with weights, and of these layers."""
    wiring = Wiring(model.graph)
    after: set[str] = set()
    ends: set[str] = set()
    waiting = [wiring.producers[o] for o in wiring.outputs if o in wiring.producers]
    while waiting:
        node = waiting.pop()
        if node.name in after or node.name in ends or node.op_type in SIZES:
            continue
        if is_weighted(node, wiring) and not _is_expectation(node, wiring):
            ends.add(node.name)
            continue
        after.add(node.name)
        waiting += wiring.parents(node)
    return after, ends


def _is_expectation(node: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether a node with weights takes a softmax and nothing else."""
    parents = wiring.parents(node)
    while len(parents) == 1 and parents[0].op_type in RESHAPING:
        # A reshape's sizes may be computed, too.
        parents = [wiring.producers[n] for n in parents[0].input[:1] if n in wiring.producers]
    return len(parents) == 1 and parents[0].op_type == "Softmax"


def _ending(node: onnx.NodeProto, wiring: Wiring) -> set[str]:
    """The division by what an unstable node gives, and the affine nodes behind it.

    ONNX Runtime fuses all of them into one operation, and fails if their types differ.
    """
    found = set()
    waiting = [n for n in wiring.children(node) if n.op_type == "Div"]
    while waiting:
        end = waiting.pop()
        found.add(end.name)
        waiting += [
            n
            for n in wiring.children(end)
            if n.op_type in ("Add", "Mul") and any(wiring.is_float(name) for name in n.input)
        ]
    return found


def _between(start: onnx.NodeProto, wiring: Wiring) -> set[str]:
    """Pointwise nodes on the way from an unstable node to another."""
    reached = {n.name: n for n in wiring.children(start) if n.op_type in POINTWISE}
    waiting = list(reached.values())
    while waiting:
        for node in wiring.children(waiting.pop()):
            if node.op_type in POINTWISE and node.name not in reached:
                reached[node.name] = node
                waiting.append(node)
    leading: set[str] = set()
    changed = True
    while changed:
        found = {
            name
            for name, node in reached.items()
            if any(c.op_type in UNSTABLE or c.name in leading for c in wiring.children(node))
        }
        changed = found != leading
        leading = found
    return leading
