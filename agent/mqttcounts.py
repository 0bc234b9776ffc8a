"""What a link to the broker has done since its start."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, get_args

Cause = Literal[
    "connects",
    "disconnects",
    "failures",
    "sent",
    "acknowledged",
    "refused",
    "too_large",
    "given_up",
]


class LinkCounts:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Cause] = Counter()

    def note(self, cause: Cause) -> bool:
        """Count one more.

        Returns:
            Whether it is the first: it is told louder than those after it.
        """
        with self._lock:
            self._counts[cause] += 1
            return self._counts[cause] == 1

    def told(self) -> dict[str, object]:
        """Plain values for telemetry."""
        with self._lock:
            return {cause: self._counts[cause] for cause in get_args(Cause)}
