"""How far one engine's output tensors are from another's: pure figures, in bounded memory.

What is compared are named parts: an output tensor, or a part of one that has a meaning of its own.
Boxes and scores that lie in one tensor must be parts: scores of 0..1 vanish beside coordinates of
hundreds of pixels, so a detector whose scores are all 0 has a cosine of 0.9999 as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Parts = Mapping[str, NDArray[Any]]


class OutputsDifferError(EngineError):
    """Two engines cannot be compared: inputs or outputs have other names or shapes."""


@dataclass(frozen=True, slots=True)
class TensorFigures:
    """One part over all pictures, the reference's values r beside the candidate's values c.

    Attributes:
        finite: no value of the candidate is NaN or infinite where the reference's is finite.
        cosine: `sum(r c) / sqrt(sum(r^2) sum(c^2))`, -1..1. Two parts that are all 0 are equal: 1.
            One that is all 0 beside one that is not has nothing of it: 0.
        snr_db: signal to noise, `10 log10(sum(r^2) / sum((r - c)^2))`, decibels; infinite if they
            are equal.
        max_abs: `max |r - c|`, in the part's unit.
    """

    finite: bool
    cosine: float
    snr_db: float
    max_abs: float

    def as_json(self) -> dict[str, object]:
        """Figures rounded for a report; what JSON cannot say is None."""
        return {
            "finite": self.finite,
            "cosine": _rounded(self.cosine, 6),
            "snr_db": _rounded(self.snr_db, 2),
            "max_abs": _rounded(self.max_abs, 6),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of an engine.

    Attributes:
        passed: whether it may serve.
        figures: everything that was measured, as JSON values.
        reasons: why it did not pass: sentences with figures and limits.
    """

    passed: bool
    figures: Mapping[str, object] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class _Sums:
    products: float = 0.0
    reference: float = 0.0
    candidate: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    finite: bool = True


class Comparison:
    """Adds up picture after picture."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}

    def add(self, reference: Parts, candidate: Parts) -> None:
        """Compare the outputs for one picture, or one batch.

        Args:
            reference: parts by name, of any real type.
            candidate: the same names and shapes.

        Raises:
            OutputsDifferError: names or shapes differ.
        """
        if reference.keys() != candidate.keys():
            raise OutputsDifferError(
                f"its outputs are {', '.join(candidate)} instead of {', '.join(reference)}"
            )
        for name, expected in reference.items():
            if expected.shape != candidate[name].shape:
                raise OutputsDifferError(
                    f"its {name} have shape {list(candidate[name].shape)} instead of "
                    f"{list(expected.shape)}"
                )
        for name, expected in reference.items():
            self._add(self._sums.setdefault(name, _Sums()), expected, candidate[name])

    def figures(self) -> dict[str, TensorFigures]:
        """Of everything that was added, by part."""
        return {name: _figures(sums) for name, sums in self._sums.items()}

    @staticmethod
    def _add(sums: _Sums, expected: NDArray[Any], found: NDArray[Any]) -> None:
        # Sums of squares of float16 overflow, and of a million float32 lose digits.
        r = np.asarray(expected, np.float64).ravel()
        c = np.asarray(found, np.float64).ravel()
        known = np.isfinite(r)
        usable = known & np.isfinite(c)
        if not usable.all():
            sums.finite &= bool((usable == known).all())
            r, c = r[usable], c[usable]
        difference = r - c
        sums.products += float(r @ c)
        sums.reference += float(r @ r)
        sums.candidate += float(c @ c)
        sums.noise += float(difference @ difference)
        sums.max_abs = max(sums.max_abs, float(np.abs(difference).max(initial=0.0)))


def _figures(sums: _Sums) -> TensorFigures:
    if sums.noise == 0:
        return TensorFigures(sums.finite, 1.0, math.inf, 0.0)
    norm = math.sqrt(sums.reference) * math.sqrt(sums.candidate)
    signal = sums.reference / sums.noise
    return TensorFigures(
        finite=sums.finite,
        cosine=sums.products / norm if norm else 0.0,
        snr_db=10 * math.log10(signal) if signal else -math.inf,
        max_abs=sums.max_abs,
    )


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
