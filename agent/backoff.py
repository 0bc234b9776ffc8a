"""Exponential back-off with full jitter: how long to wait before trying again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GROWTH = 2.0
"""Each ceiling is this many times the last."""


class Backoff:
    """Delays for one thing that is tried again and again.

    The delay is uniform between zero and a ceiling that doubles up to a maximum ("full jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that a fleet that
    lost its broker together does not come back together.

    Args:
        initial_s: first ceiling, seconds.
        max_s: last ceiling, seconds.
        uniform: source of randomness: `uniform(low, high)`.
    """

    def __init__(
        self,
        initial_s: float,
        max_s: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._initial_s = initial_s
        self._max_s = max_s
        self._uniform = uniform
        self.attempts = 0
        """Delays given since the last success."""

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        # The exponent is bounded: 2.0 ** 1024 overflows after weeks without a camera.
        ceiling = min(self._max_s, self._initial_s * GROWTH ** min(self.attempts, 64))
        self.attempts += 1
        return self._uniform(0.0, ceiling)

    def reset(self) -> None:
        """The attempt succeeded."""
        self.attempts = 0
