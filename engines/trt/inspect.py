"""What a built engine says of its layers: which precision really runs, and what is reformatted.

The inspector's JSON is read as releases 8 to 11 write it. A layer is an object with `Name` and
`LayerType` and lists of tensors, `Inputs` and `Outputs`, whose `Format/Datatype` names a type; or,
if the engine was built without details, no more than its name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from engines.errors import BackendError

COMPUTING = re.compile(
    r"conv|gemm|matmul|matrix|fullyconnected|caskgemm|myelin|foreignnode|fusedconv|kgen",
    re.IGNORECASE,
)
"""Kinds of layers that multiply weights, or are compiled from such."""

REFORMAT = re.compile(r"reformat|NoOp.*copy|CopyNode", re.IGNORECASE)
"""Kinds of layers that only change how values lie."""

TYPES = (
    (re.compile(r"(?<!u)int8|\bi8\b", re.IGNORECASE), "int8"),
    (re.compile(r"bf16|bfloat16", re.IGNORECASE), "bf16"),
    (re.compile(r"fp16|half|\bf16\b|float16", re.IGNORECASE), "fp16"),
    (re.compile(r"fp32|float32|\bf32\b|\bfloat\b", re.IGNORECASE), "fp32"),
)
"""Spellings of types; the first that fits counts, so BFloat16 is no Float16. Frames are UInt8,
which is no arithmetic."""

DLA = re.compile(r"\bdla\b|DLA_|\{ForeignNode\[.*dla", re.IGNORECASE)

SHARE = 0.5
"""An engine is of a reduced precision if more than this share of its computing layers is: TensorRT
may leave single layers in another that is quicker there, and int8 engines keep a float head."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a built engine.

    Attributes:
        name: as the builder made it up, from the names of the fused nodes.
        kind: TensorRT's `LayerType`; empty if it says none.
        precision: "int8", "fp16", "bf16", "fp32", or "other" if no type is told.
        reformat: whether it only changes how values lie.
        dla: whether it runs on a deep learning accelerator.
    """

    name: str
    kind: str
    precision: str
    reformat: bool
    dla: bool

    @property
    def computes(self) -> bool:
        """Whether it multiplies weights."""
        return not self.reformat and bool(COMPUTING.search(f"{self.kind} {self.name}"))


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a whole engine is.

    Attributes:
        layers: all of them, in the order they run.
        precision: "int8", "fp16" or "bf16" if most of its computing layers compute in it, "fp32" if
            all do, else "mixed".
    """

    layers: tuple[Layer, ...]
    precision: str

    @property
    def counts(self) -> dict[str, int]:
        """Layers by precision, reformats apart, those on a DLA beside them."""
        found = Counter("reformat" if row.reformat else row.precision for row in self.layers)
        dla = sum(row.dla for row in self.layers)
        return {**dict(sorted(found.items())), **({"dla": dla} if dla else {})}


def read(text: str) -> EngineFacts:
    """Read the inspector's JSON.

    Raises:
        BackendError: it is not that, or tells no types because the engine was built without
            `ProfilingVerbosity.DETAILED`.
    """
    try:
        value = json.loads(text)
        layers = tuple(_layer(entry) for entry in value["Layers"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"TensorRT's inspector gave no list of layers ({error}); report it with the version"
        ) from error
    if layers and all(row.precision == "other" for row in layers):
        raise BackendError(
            "the engine tells nothing of its layers' types; build it with detailed verbosity"
        )
    return EngineFacts(layers, _precision(layers))


def _layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(entry, "", "other", bool(REFORMAT.search(entry)), bool(DLA.search(entry)))
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    return Layer(
        name,
        kind,
        _type(entry),
        bool(REFORMAT.search(kind) or REFORMAT.match(name)),
        bool(DLA.search(kind) or DLA.search(name)),
    )


def _type(entry: dict[str, Any]) -> str:
    """The type of what a layer reads: a kernel that reads int8 computes in it."""
    told = str(entry.get("Precision", ""))
    for group in ("Inputs", "Outputs"):
        tensors = entry.get(group) or []
        told = told or next(
            (str(t.get("Format/Datatype", "")) for t in tensors if isinstance(t, dict)), ""
        )
    return next((name for pattern, name in TYPES if pattern.search(told)), "other")


def _precision(layers: tuple[Layer, ...]) -> str:
    known = [row for row in layers if row.precision != "other" and not row.reformat]
    counted = [row for row in known if row.computes] or known
    kinds = Counter(row.precision for row in counted)
    for kind in ("int8", "fp16", "bf16"):
        if kinds[kind] > SHARE * len(counted):
            return kind
    return "fp32" if set(kinds) == {"fp32"} else "mixed"
