"""How much each device may ask of the controller: token buckets. Pure."""

from __future__ import annotations


class Allowances:
    """One bucket for each name.

    Args:
        rate: tokens a second that come back.
        burst: tokens of a full bucket.

    The caller sees to it that names are few: enrolled devices, not whatever a message says.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, wanted: int, now: float) -> int:
        """Take up to `wanted` tokens.

        Args:
            name: whose.
            wanted: how many, from 0.
            now: monotonic seconds.

        Returns:
            How many were there.
        """
        tokens, at = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + self._rate * max(now - at, 0.0))
        given = min(wanted, int(tokens))
        self._buckets[name] = (tokens - given, now)
        return given
