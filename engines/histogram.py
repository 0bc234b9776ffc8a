"""Histograms of absolute values that grow with what they see, and what is read from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.ranges import QUANTISED_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 4096
"""Number of bins. The range is a power of two, so at least half of them lie under the largest value
and a bin is at most 1/2048 of it wide."""

LEAST_RANGE = 2.0**-60
"""A tensor whose values are all smaller than this counts as 0."""

LEVELS = QUANTISED_MAX + 1
"""Magnitudes of a symmetric int8 value: 0..127."""

STRIDE = 8
"""The entropy method tries every so many bins; 1/256 of the range at the most."""


class Histogram:
    """Counts of absolute values in equal bins over 0..`top`.

    `top` is the least power of two that covers everything seen. Where it doubles, bins are joined
    two by two; the outcome so does not depend on the order in which values come.

    Attributes:
        amax: largest absolute value seen.
        least: smallest value seen, or 0 if it is greater; kept here, counted nowhere.
        top: upper end of the last bin.
        counts: int64 [BINS].
    """

    def __init__(self) -> None:
        self.amax = 0.0
        self.least = 0.0
        self.top = LEAST_RANGE
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, magnitudes: NDArray[np.float32], largest: float) -> None:
        """Count values.

        Args:
            magnitudes: absolute values, finite, any shape.
            largest: their maximum.
        """
        self.amax = max(self.amax, largest)
        top = max(LEAST_RANGE, 2.0 ** math.ceil(math.log2(largest)) if largest > 0 else 0.0)
        if top > self.top:
            self._widen(round(math.log2(top / self.top)))
            self.top = top
        places = (magnitudes.ravel() * np.float32(BINS / self.top)).astype(np.int32)
        np.minimum(places, BINS - 1, out=places)
        self.counts += np.bincount(places, minlength=BINS)

    def _widen(self, doublings: int) -> None:
        factor = 2 ** min(doublings, round(math.log2(BINS)))
        joined = self.counts.reshape(-1, factor).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[: len(joined)] = joined

    def percentile(self, percent: float) -> float:
        """Magnitude under which `percent` of all values lie, interpolated within its bin."""
        total = int(self.counts.sum())
        if not total:
            return 0.0
        wanted = total * percent / 100
        cumulative = np.cumsum(self.counts)
        place = int(np.searchsorted(cumulative, wanted))
        before = int(cumulative[place - 1]) if place else 0
        share = (wanted - before) / max(1, int(self.counts[place]))
        return min(self.amax, (place + share) * self.top / BINS)

    def entropy(self) -> float:
        """The threshold that keeps most of the information.

        The method of S. Migacz, "8-bit inference with TensorRT", GTC 2017: for each threshold, P is
        the histogram with everything above counted in its last bin, Q the same values told apart in
        128 levels only; the threshold with the least Kullback-Leibler divergence
        sum(P log(P / Q)) is taken. Values next to zero are exact at every threshold and say
        nothing, so their bin is given its neighbour's count.
        """
        used = int(np.flatnonzero(self.counts).max(initial=0)) + 1
        if used <= LEVELS:
            return self.amax
        counts = self.counts[:used].astype(np.float64)
        counts[0] = counts[1]
        stops = [*range(LEVELS, used, STRIDE), used]
        best: int = min(stops, key=lambda stop: _divergence(counts, stop))
        return min(self.amax, best * self.top / BINS)


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    """Kullback-Leibler divergence of what is left of a histogram cut at bin `stop`."""
    inside = counts[:stop]
    reference = inside.copy()
    reference[-1] += counts[stop:].sum()
    starts = (np.arange(LEVELS) * stop) // LEVELS
    filled = inside > 0
    sums = np.add.reduceat(inside, starts)
    numbers = np.add.reduceat(filled.astype(np.float64), starts)
    means = np.divide(sums, numbers, out=np.zeros_like(sums), where=numbers > 0)
    quantised = np.repeat(means, np.diff(np.append(starts, stop))) * filled
    kept: NDArray[Any] = reference > 0
    p = reference[kept] / reference.sum()
    # A bin that only the cut-off values fill is empty in Q; a tiny value there makes it dear.
    q = np.maximum(quantised[kept] / max(quantised.sum(), 1.0), 1e-12)
    return float(np.sum(p * np.log(p / q)))
