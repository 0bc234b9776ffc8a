"""A model's description as text for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engines.base import TensorSpec
    from engines.model import ModelInfo

SHOWN_NAMES = 20
"""Class names shown to people; JSON has them all."""


def as_dict(info: ModelInfo) -> dict[str, object]:
    """Stable, documented keys; see docs/commands.md."""
    return {
        "name": info.name,
        "digest": info.digest,
        "task": info.task.value,
        "layout": info.layout.value,
        "names": list(info.names),
        "width": info.width,
        "height": info.height,
        "max_batch": info.max_batch,
        "resize": info.resize.value,
        "stride": info.stride,
        "keypoint_shape": list(info.keypoint_shape) if info.keypoint_shape else None,
        "precision": info.precision,
        "input": _tensor(info.input),
        "outputs": [_tensor(t) for t in info.outputs],
        "inferred": list(info.inferred),
    }


def as_text(info: ModelInfo) -> str:
    """A small table."""
    names = ", ".join(info.names[:SHOWN_NAMES])
    more = len(info.names) - SHOWN_NAMES
    rows = [
        ("name", info.name),
        ("task", info.task.value),
        ("layout", info.layout.value),
        ("classes", f"{len(info.names)}: {names}" + (f" … and {more} more" if more > 0 else "")),
        ("size", f"{info.width}x{info.height}, {info.resize.value}"),
        ("batch", "any" if info.max_batch is None else str(info.max_batch)),
        ("precision", info.precision),
        ("input", _line(info.input)),
        *(("output", _line(t)) for t in info.outputs),
        ("digest", info.digest),
        *(("inferred", sentence) for sentence in info.inferred),
    ]
    return "\n".join(f"{key:<10} {value}" for key, value in rows)


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype.name}


def _line(spec: TensorSpec) -> str:
    shape = ", ".join("?" if n is None else str(n) for n in spec.shape)
    return f"{spec.name} {spec.dtype.name} [{shape}]"
