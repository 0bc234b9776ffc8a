"""Puts QuantizeLinear/DequantizeLinear pairs into a float32 graph, placed as TensorRT wants them.

Rules (the same as those of NVIDIA's ModelOpt, written anew):

- Pairs stand on inputs only, of operations that gain from int8: layers with weights, max pooling,
  and additions. What follows a convolution (activation, batch normalisation) fuses into it.
- Weights have one scale per output channel, activations one per tensor; zero points are 0; biases
  are not quantised.
- Of an addition, only the input that does not come straight from a convolution is quantised: the
  other one is added inside the convolution's kernel, before anything is rounded.
- All int8 users of a tensor share one pair. Tensors that only carry the same values (reshaped,
  pooled, joined) share one scale, so that no requantisation stands between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engines.errors import CalibrationError
from engines.ranges import QUANTISED_MAX
from engines.weights import WEIGHTED
from engines.wiring import Wiring, float_activations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

SCALE_FLOOR = 2.0**-40
"""Least scale in a float32 graph; TensorRT refuses 0."""

HALF_SCALE_FLOOR = 2.0**-14
"""Least scale in a float16 graph: the smallest normal number. Smaller ones lose precision, and
under 2**-25 they become 0."""

MAX_COARSENING = 4
"""How many times as coarse as calibrated a scale may become by `HALF_SCALE_FLOOR`: two bits."""

KEEPS_RANGE = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Identity",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    }
)
"""Operations whose results lie in the range of what they take."""

FUSED = frozenset(
    {"BatchNormalization", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu",
     "Sigmoid"}
)  # fmt: skip
"""Operations that TensorRT computes inside the kernel of the convolution before them."""

ADD_INPUTS = 2


@dataclass(slots=True)
class Placement:
    """Where Q/DQ pairs stand.

    Attributes:
        activations: (node, place of the input) of every use, by tensor name.
        weights: (node, place of the input, axis of its output channels) by tensor name.
    """

    activations: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    weights: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)

    @property
    def nodes(self) -> frozenset[str]:
        """Names of the nodes that compute in int8."""
        return frozenset(n for uses in self.activations.values() for n, _ in uses)


def place(model: onnx.ModelProto, float_nodes: frozenset[str]) -> Placement:
    """Decide where pairs stand.

    Args:
        model: prepared float32 graph.
        float_nodes: names of nodes that get none.
    """
    wiring = Wiring(model.graph)
    floats = frozenset(float_activations(model))
    placed = Placement()
    layers: set[str] = set()
    for node in model.graph.node:
        if node.name in float_nodes:
            continue
        axis = weight_axis(node, wiring)
        if axis is not None and node.input[0] in floats:
            weight = WEIGHTED[node.op_type]
            layers.add(node.name)
            placed.activations.setdefault(node.input[0], []).append((node.name, 0))
            placed.weights.setdefault(node.input[weight], []).append((node.name, weight, axis))
        elif node.op_type == "MaxPool" and node.input[0] in floats:
            placed.activations.setdefault(node.input[0], []).append((node.name, 0))
        elif node.op_type == "Add":
            residual = _residual(node, wiring, floats, layers)
            if residual is not None:
                use = (node.name, residual)
                placed.activations.setdefault(node.input[residual], []).append(use)
    return placed


def weight_axis(node: onnx.NodeProto, wiring: Wiring) -> int | None:
    """The axis of a node's constant weights that counts output channels; None if it has none."""
    position = WEIGHTED.get(node.op_type)
    if position is None or len(node.input) <= position:
        return None
    name = node.input[position]
    if not wiring.is_float(name):
        return None
    rank = len(wiring.weights[name].dims)
    if node.op_type == "MatMul":
        return 1 if rank == 2 else None  # noqa: PLR2004 - a matrix
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return 0 if transposed else 1
    return 1 if node.op_type == "ConvTranspose" else 0


def _residual(
    node: onnx.NodeProto, wiring: Wiring, floats: frozenset[str], layers: set[str]
) -> int | None:
    """Which input of an addition is quantised; None if it is no addition of two branches."""
    if len(node.input) != ADD_INPUTS or not floats.issuperset(node.input):
        return None
    if node.input[0] == node.input[1]:
        return None
    direct = [_comes_from_layer(name, wiring, layers) for name in node.input]
    if direct[1]:
        return 0
    return 1 if direct[0] else None


def _comes_from_layer(name: str, wiring: Wiring, layers: set[str]) -> bool:
    """Whether a tensor is what an int8 layer and its activation give, for one user only."""
    if len(wiring.consumers.get(name, ())) != 1 or name in wiring.outputs:
        return False
    node = wiring.producers.get(name)
    while node is not None and node.op_type in FUSED:
        # x * sigmoid(x): the way through the sigmoid is the longer one of the same.
        node = wiring.producers.get(node.input[0])
    return node is not None and node.name in layers


def shared_ranges(
    model: onnx.ModelProto, amax: Mapping[str, float], float_nodes: frozenset[str]
) -> dict[str, float]:
    """Ranges in which tensors that carry the same values have the same one, the largest.

    Args:
        model: prepared float32 graph.
        amax: calibrated ranges by tensor name.
        float_nodes: nodes through which nothing is shared.
    """
    leaders = share_groups(model, amax, float_nodes)
    groups: dict[str, float] = {}
    for name, value in amax.items():
        groups[leaders[name]] = max(groups.get(leaders[name], 0.0), value)
    return {name: groups[leaders[name]] for name in amax}


def share_groups(
    model: onnx.ModelProto, names: Iterable[str], float_nodes: frozenset[str]
) -> dict[str, str]:
    """One name for each group of tensors that carry the same values, by tensor name."""
    leaders = {name: name for name in names}

    def leader(name: str) -> str:
        while leaders[name] != name:
            leaders[name] = leaders[leaders[name]]
            name = leaders[name]
        return name

    for node in model.graph.node:
        if not keeps_range(node) or node.name in float_nodes:
            continue
        taken = node.input if node.op_type == "Concat" else node.input[:1]
        first, *others = [n for n in (*taken, *node.output) if n in leaders] or [""]
        for name in others:
            leaders[leader(name)] = leader(first)
    return {name: leader(name) for name in leaders}


def keeps_range(node: onnx.NodeProto) -> bool:
    """Whether a node's results lie in the range of what it takes."""
    # Cubic interpolation overshoots.
    cubic = any(a.name == "mode" and a.s == b"cubic" for a in node.attribute)
    return node.op_type in KEEPS_RANGE and not cubic


def channel_scales(weight: NDArray[np.float32], axis: int, floor: float) -> NDArray[np.float32]:
    """One scale for each channel along `axis`: its largest magnitude over 127."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = np.abs(weight).max(axis=others, initial=0) / QUANTISED_MAX
    floored: NDArray[np.float32] = np.maximum(scales, floor).astype(np.float32)
    return floored


def scale_of(name: str, amax: Mapping[str, float], floor: float) -> float:
    """The scale of an activation.

    Raises:
        CalibrationError: the tensor was not calibrated.
    """
    if name not in amax:
        raise uncalibrated(name)
    return float(max(np.float32(amax[name] / QUANTISED_MAX), floor))


def too_fine(
    model: onnx.ModelProto, amax: Mapping[str, float], float_nodes: frozenset[str], floor: float
) -> frozenset[str]:
    """Names of nodes whose activations would lose most of their levels to the least scale.

    A tensor that was always 0 loses nothing.

    Args:
        model: prepared float32 graph.
        amax: calibrated ranges by tensor name.
        float_nodes: nodes that have no levels to lose.
        floor: least scale.
    """
    ranges = shared_ranges(model, amax, float_nodes)
    found: set[str] = set()
    for name, uses in place(model, float_nodes).activations.items():
        if 0 < ranges.get(name, 0.0) / QUANTISED_MAX < floor / MAX_COARSENING:
            found |= {node for node, _ in uses}
    return frozenset(found)


def uncalibrated(name: str) -> CalibrationError:
    """The error for a tensor that has no range."""
    return CalibrationError(
        f"the ranges say nothing of tensor {name!r}: they are of another model; "
        "delete them, and the model is calibrated again"
    )


def insert(
    model: onnx.ModelProto,
    amax: Mapping[str, float],
    float_nodes: frozenset[str],
    *,
    floor: float = SCALE_FLOOR,
) -> onnx.ModelProto:
    """Put the pairs in.

    Args:
        model: prepared float32 graph of opset 13 or later; changed in place.
        amax: calibrated ranges by tensor name.
        float_nodes: names of nodes that stay in floating point.
        floor: least scale.

    Returns:
        The model.

    Raises:
        CalibrationError: a tensor that is to be quantised has no range.
    """
    placed = place(model, float_nodes)
    ranges = shared_ranges(model, amax, float_nodes)
    graph = model.graph
    wiring = Wiring(graph)
    nodes = {node.name: node for node in graph.node}
    # A pair stands right behind what gives its tensor; inputs and weights come first of all.
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for name, uses in placed.activations.items():
        scale = np.float32(scale_of(name, ranges, floor))
        pair = _pair(graph, name, name, np.asarray(scale), None)
        producer = wiring.producers.get(name)
        pairs.setdefault(producer.name if producer else "", []).extend(pair)
        for user, position in uses:
            nodes[user].input[position] = pair[-1].output[0]
    for name, weight_uses in placed.weights.items():
        array = numpy_helper.to_array(wiring.weights[name])
        for axis in sorted({axis for _, _, axis in weight_uses}):
            prefix = name if axis == 0 else f"{name}:{axis}"
            pair = _pair(graph, prefix, name, channel_scales(array, axis, floor), axis)
            pairs.setdefault("", []).extend(pair)
            for user, position, along in weight_uses:
                if along == axis:
                    nodes[user].input[position] = pair[-1].output[0]
    interleave(graph, pairs)
    return model


def _pair(
    graph: onnx.GraphProto,
    prefix: str,
    name: str,
    scale: NDArray[np.float32],
    axis: int | None,
) -> list[onnx.NodeProto]:
    zero = np.zeros(scale.shape, np.int8)
    names = [f"{prefix}/scale", f"{prefix}/zero"]
    graph.initializer.append(numpy_helper.from_array(scale, names[0]))
    graph.initializer.append(numpy_helper.from_array(zero, names[1]))
    options: dict[str, Any] = {} if axis is None else {"axis": axis}
    make = helper.make_node
    q, dq = f"{prefix}/q", f"{prefix}/dq"
    return [
        make("QuantizeLinear", [name, *names], [q], name=f"{prefix}/QuantizeLinear", **options),
        make("DequantizeLinear", [q, *names], [dq], name=f"{prefix}/DequantizeLinear", **options),
    ]


def interleave(graph: onnx.GraphProto, added: Mapping[str, list[onnx.NodeProto]]) -> None:
    """Put nodes behind others, by name; "" is the beginning."""
    order = list(added.get("", ()))
    for node in graph.node:
        order.append(onnx.NodeProto.FromString(node.SerializeToString()))
        order += added.get(node.name, ())
    del graph.node[:]
    graph.node.extend(order)
