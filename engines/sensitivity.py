"""Orders an int8 graph's layers by how much their quantisation costs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.backend import Progress
from engines.calibrate import Probe
from engines.graph import PREFIX
from engines.regions import is_weighted, last
from engines.wiring import Wiring, float_activations

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from engines.images import Images
    from engines.source import Source

MAX_GROUPS = 24
"""Layers are joined to at most so many groups; each costs one session and a few inferences."""

MAX_IMAGES = 8

NO_NOISE_DB = 200.0
"""Given where quantisation changes nothing at all."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that are quantised together.

    Attributes:
        nodes: their names; a layer with weights and what follows it up to the next one.
        snr_db: signal-to-noise ratio, in dB, with these layers quantised and no others.
    """

    nodes: frozenset[str]
    snr_db: float


def order(
    source: Source,
    float_nodes: frozenset[str],
    images: Images,
    tell: Callable[[Progress], None],
    *,
    threads: int = 1,
) -> list[Group]:
    """Measure what each group of layers costs, quantised alone.

    Noise is measured where the last layers with weights end, not at the outputs: there coordinates
    of hundreds of pixels would hide what happens to scores of 0..1, and a selection of the best
    candidates changes by leaps. Each of these tensors counts the same: the ratio is the mean over
    them of sum(error^2) / sum(value^2), as -10 log10.

    Args:
        source: the model and its ranges.
        float_nodes: layers that are in floating point already; they are in no group.
        images: the first `MAX_IMAGES` of them are used.
        tell: takes progress.
        threads: processor cores to use.

    Returns:
        Groups that have something to quantise, worst first.

    Raises:
        CalibrationError: the source has no pictures, or these images are of another size.
    """
    graph = source.graph("host")
    everything = frozenset(n.name for n in graph.graph.node)
    groups = _groups(graph, float_nodes)
    watched = _watched(source.graph("tensor"))
    pictures = list(itertools.islice(images, MAX_IMAGES))
    reference = _outcomes(graph, watched, pictures, threads)
    found = []
    for number, nodes in enumerate(groups, 1):
        quantised = source.variants("host", everything - nodes, tell).qdq_host()
        values = _outcomes(quantised, watched, pictures, threads)
        found.append(Group(nodes, _ratio(reference, values)))
        tell(Progress("ordering layers", number, len(groups)))
    return sorted(found, key=lambda group: group.snr_db)


def _groups(graph: onnx.ModelProto, float_nodes: frozenset[str]) -> list[frozenset[str]]:
    """Layers in the graph's order, each with what follows it, joined to `MAX_GROUPS`."""
    wiring = Wiring(graph.graph)
    layers: list[set[str]] = []
    for node in graph.graph.node:
        if node.name in float_nodes or node.name.startswith(PREFIX):
            continue
        if is_weighted(node, wiring):
            layers.append({node.name})
        elif layers:
            layers[-1].add(node.name)
    size = -(-len(layers) // MAX_GROUPS) or 1
    parts = (layers[start : start + size] for start in range(0, len(layers), size))
    return [frozenset().union(*part) for part in parts]


def _watched(graph: onnx.ModelProto) -> list[str]:
    """What the last layers with weights give; the outputs where there are none."""
    ends = last(graph)
    floats = set(float_activations(graph))
    names = [node.output[0] for node in graph.graph.node if node.name in ends]
    names = names or [output.name for output in graph.graph.output]
    return [name for name in names if name in floats]


def _outcomes(
    graph: onnx.ModelProto, names: list[str], pictures: list[NDArray[np.uint8]], threads: int
) -> list[list[NDArray[np.float32]]]:
    probe = Probe(graph, names, threads)
    return [probe.run(picture) for picture in pictures]


def _ratio(
    reference: list[list[NDArray[np.float32]]], values: list[list[NDArray[np.float32]]]
) -> float:
    """Signal-to-noise ratio over all pictures, in dB."""
    shares = []
    for tensors in zip(zip(*reference, strict=True), zip(*values, strict=True), strict=True):
        signal = sum(float(np.square(r, dtype=np.float64).sum()) for r in tensors[0])
        pairs = zip(*tensors, strict=True)
        noise = sum(float(np.square(r - v, dtype=np.float64).sum()) for r, v in pairs)
        shares.append(noise / max(signal, np.finfo(np.float64).tiny))
    share = sum(shares) / max(len(shares), 1)
    return min(NO_NOISE_DB, float(-10 * np.log10(max(share, 1e-20))))
