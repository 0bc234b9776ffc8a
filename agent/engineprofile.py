"""Where the time of one inference goes, layer by layer, whatever library runs the model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REFORMATS = frozenset(
    {
        "Cast",
        "Convert",
        "DequantizeLinear",
        "FakeQuantize",
        "MemcpyFromHost",
        "MemcpyToHost",
        "NoOp",
        "QuantizeLinear",
        "Reformat",
        "Reorder",
        "ReorderInput",
        "ReorderOutput",
    }
)
"""Operations that only change type, layout or place of values: ONNX Runtime's, OpenVINO's,
TensorRT's."""

MAX_REFORMAT_SHARE = 0.15
"""More of the time than this in reformats, and the precision or its placement does not pay."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as it is really run, after the library's fusions.

    Attributes:
        name: the library's name for it.
        op: operation.
        precision: what it computes in, as far as the library tells; else empty.
        ms: mean time in one run, milliseconds.
        shape: of its output, as far as the library tells.
        count: how many layers were put together in this row.
    """

    name: str
    op: str
    precision: str
    ms: float
    shape: tuple[int, ...] = ()
    count: int = 1

    @property
    def reformat(self) -> bool:
        """Whether it computes nothing."""
        return self.op in REFORMATS


@dataclass(frozen=True, slots=True)
class Profile:
    """A profiled engine.

    Attributes:
        backend: library that ran it.
        precision: asked for.
        layers: slowest first.
        run_ms: mean time of a whole run, which is more than the layers' sum.
        runs: how many runs the means are of.
        facts: how it was measured: threads, batch, size.
    """

    backend: str
    precision: str
    layers: tuple[Layer, ...]
    run_ms: float
    runs: int
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def total_ms(self) -> float:
        """Sum over the layers."""
        return sum(layer.ms for layer in self.layers)

    @property
    def reformat_ms(self) -> float:
        """Sum over the layers that compute nothing."""
        return sum(layer.ms for layer in self.layers if layer.reformat)

    @property
    def reformat_share(self) -> float:
        """Part of the layers' time in those that compute nothing, 0..1."""
        return self.reformat_ms / self.total_ms if self.total_ms else 0.0


def slowest_first(layers: list[Layer]) -> tuple[Layer, ...]:
    """In the order in which people read them."""
    return tuple(sorted(layers, key=lambda layer: (-layer.ms, layer.name)))


def by_op(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers of the same operation and precision put together, slowest first."""
    return _together(layers, lambda layer: (layer.op, layer.precision))


def _together(
    layers: tuple[Layer, ...], key: Callable[[Layer], tuple[str, str]]
) -> tuple[Layer, ...]:
    groups: defaultdict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[key(layer)].append(layer)
    return slowest_first(
        [
            Layer(op, op, precision, sum(one.ms for one in group), (), sum(o.count for o in group))
            for (op, precision), group in groups.items()
        ]
    )


def warnings(profile: Profile) -> list[str]:
    """What stands out, as sentences."""
    said = []
    if profile.reformat_share > MAX_REFORMAT_SHARE:
        count = sum(layer.reformat for layer in profile.layers)
        said.append(
            f"{profile.reformat_share:.0%} of the time goes into {count} layers that only change "
            f"type or layout (more than {MAX_REFORMAT_SHARE:.0%}); {_advice(profile)}"
        )
    return said


def _advice(profile: Profile) -> str:
    if profile.precision == "int8":
        return (
            "neighbouring layers change between int8 and float too often: see which layers the "
            "quantiser left in float, or use fp16"
        )
    return "the layers around them are too small to pay for their own layout: try another backend"


def as_dict(profile: Profile, top: int | None = None) -> dict[str, object]:
    """For JSON; see docs/commands.md.

    Args:
        profile: what was measured.
        top: how many layers; None for all.
    """
    total = profile.total_ms or 1.0

    def row(layer: Layer) -> dict[str, object]:
        return {
            "layer": layer.name,
            "op": layer.op,
            "precision": layer.precision,
            "ms": round(layer.ms, 4),
            "share": round(layer.ms / total, 4),
            "count": layer.count,
            "shape": list(layer.shape),
            "reformat": layer.reformat,
        }

    def group(layer: Layer) -> dict[str, object]:
        full = row(layer)
        return {key: full[key] for key in ("op", "precision", "ms", "share", "count", "reformat")}

    return {
        "backend": profile.backend,
        "precision": profile.precision,
        "runs": profile.runs,
        "run_ms": round(profile.run_ms, 4),
        "layers_ms": round(profile.total_ms, 4),
        "reformat_ms": round(profile.reformat_ms, 4),
        "reformat_share": round(profile.reformat_share, 4),
        "warnings": warnings(profile),
        "layers": [row(layer) for layer in profile.layers[:top]],
        "by_op": [group(layer) for layer in by_op(profile.layers)],
        **profile.facts,
    }
