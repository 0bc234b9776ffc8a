"""Chooses which pictures calibrate a model and which are held out to judge it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HELD_OUT = 64
"""Pictures that are held out for the gate, where there are enough; else a third of all."""

RUN = 8
"""The held-out pictures are runs of about this many neighbours, spread over all."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidates are used for what; both in rising order and without a common one."""

    calibration: tuple[int, ...]
    held_out: tuple[int, ...]

    @property
    def all(self) -> list[int]:
        """Both, in rising order."""
        return sorted((*self.calibration, *self.held_out))


def choose(count: int, limit: int, gap: int) -> Choice:
    """Choose pictures for both uses, each spread evenly.

    The held-out ones are runs of neighbours. Candidates nearer than `gap` to a run (but at most
    half its length) are not used for calibration: what a model is judged by is then not what it was
    calibrated with, even where neighbours look alike.

    Args:
        count: candidates.
        limit: calibration pictures at the most.
        gap: candidates nearer to each other than this show almost the same.
    """
    held = min(HELD_OUT, count // 3)
    total = min(count, limit + held)
    # With few calibration pictures the held-out ones are most; they lie in a third at the most.
    share = min(held / total, 1 / 3) if total else 0.0
    blocks = max(1, held // RUN)
    period = count / blocks
    run = math.ceil(period * share)
    margin = max(0, min(gap - 1, run // 2))
    held_places: list[int] = []
    other_places: list[int] = []
    for block in range(blocks):
        begin, end = round(block * period), round((block + 1) * period)
        start = (begin + end - run) // 2
        held_places += range(start, start + run)
        other_places += range(begin, start - margin)
        other_places += range(start + run + margin, end)
    return Choice(spread(other_places, total - held), spread(held_places, held))


def spread(places: Sequence[int], wanted: int) -> tuple[int, ...]:
    """`wanted` of the places, evenly spread; all if there are no more."""
    number = min(wanted, len(places))
    return tuple(places[(2 * i + 1) * len(places) // (2 * number)] for i in range(number))
