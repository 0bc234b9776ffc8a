"""What calibration found: how far the values of each tensor reach.

One file for every backend: Q/DQ nodes, float16 Q/DQ nodes and TensorRT's calibration cache are all
written from the same figures.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from engines.canonical import canonical
from engines.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Method = Literal["percentile", "max", "entropy"]
"""How one figure is made of all the values a tensor took."""

METHODS: tuple[Method, ...] = get_args(Method)

RECIPE_VERSION = 1
"""Raised whenever the same pictures would lead to other figures or to another graph."""

SCHEMA = "vigia.ranges/1"

QUANTISED_MAX = 127
"""Largest int8 value used; -128 is not, so that zero lies in the middle."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Calibrated ranges of one model.

    Attributes:
        method: how they were found.
        model_digest: "sha256:" + hex digest of the model file.
        data_digest: digest of the calibration pictures and of how they were chosen.
        images: how many pictures were used.
        amax: largest absolute value that is told apart, by tensor name; finite and at least 0, in
            the tensor's own unit. 0 is a tensor that was always 0.
        least: smallest value, at most 0, of the same tensors; never beyond -amax. Backends that
            quantise asymmetrically spend no levels below it.
        recipe: `RECIPE_VERSION` of the code that found them.
    """

    method: Method
    model_digest: str
    data_digest: str
    images: int
    amax: Mapping[str, float]
    least: Mapping[str, float]
    recipe: int = RECIPE_VERSION

    def __post_init__(self) -> None:
        if self.amax.keys() != self.least.keys():
            name = min(self.amax.keys() ^ self.least.keys())
            raise CalibrationError(f"tensor {name!r} has half a range; {_HINT}")
        for name, value in self.amax.items():
            if not (math.isfinite(value) and value >= 0 and -value <= self.least[name] <= 0):
                raise CalibrationError(
                    f"the range of tensor {name!r} is {self.least[name]} to {value}; "
                    "check the model's weights and the calibration pictures"
                )

    @property
    def digest(self) -> str:
        """Text "sha256:" and the hex digest of the canonical text; equal for equal ranges."""
        return "sha256:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical text: the same ranges always give the same bytes."""
        return canonical(
            {
                "schema": SCHEMA,
                "method": self.method,
                "model_digest": self.model_digest,
                "data_digest": self.data_digest,
                "images": self.images,
                "recipe": self.recipe,
                "amax": {name: float(value) for name, value in self.amax.items()},
                "least": {name: float(value) for name, value in self.least.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Ranges:
        """Read what `to_json` wrote.

        Raises:
            CalibrationError: it is something else, of another version, or has values that no
                calibration gives.
        """
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"the ranges file is not JSON: {error}; {_HINT}") from error
        fault = _fault(value)
        if fault:
            raise CalibrationError(f"the ranges file {fault}; {_HINT}")
        return cls(**{key: item for key, item in value.items() if key != "schema"})


_HINT = "delete it, and the model is calibrated again"
_FIELDS = {
    "schema": str,
    "method": str,
    "model_digest": str,
    "data_digest": str,
    "images": int,
    "recipe": int,
    "amax": dict,
    "least": dict,
}


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _fault(value: object) -> str:
    """What is wrong with a parsed file; empty if nothing is."""
    if not isinstance(value, dict):
        return "holds no object"
    if value.keys() != _FIELDS.keys():
        other = sorted(value.keys() ^ _FIELDS.keys())
        return f"has missing or unknown fields: {', '.join(other)}"
    faults = [
        f"has a {k} that is no {t.__name__}" for k, t in _FIELDS.items() if type(value[k]) is not t
    ]
    if faults:
        return faults[0]
    known = {"schema": (SCHEMA,), "recipe": (RECIPE_VERSION,), "method": METHODS}
    faults += [
        f"has the {key} {value[key]!r}, not {' or '.join(map(repr, allowed))}"
        for key, allowed in known.items()
        if value[key] not in allowed
    ]
    faults += [
        f"has the range {number!r} for tensor {name!r}"
        for key in ("amax", "least")
        for name, number in value[key].items()
        if type(number) is not float or not math.isfinite(number)
    ]
    return faults[0] if faults else ""
