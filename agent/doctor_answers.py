"""Do the thresholds suit what the model answers, and what does it cost to read the answers?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

LOWEST = 0.001
"""Scores are collected from here on."""

NEAR = 0.5
"""A best score of at least this part of the threshold was probably meant to be found."""

FULL = 0.9
"""Share of pictures with as many objects as are allowed, from which the limit is in the way."""

CROWD = 100
"""Objects in a picture, on average, that are too many to be real in most scenes."""

SLOW_DECODE = 0.25
"""Part of the inference's time that decoding should not reach."""


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """What a model answers to pictures.

    Attributes:
        best: highest score in each picture, whatever the threshold.
        counts: objects at the configured thresholds in each picture.
        low_counts: objects at `LOWEST` in each picture.
        decode_ms: time to decode one picture at the configured thresholds, median.
        infer_ms: time of one inference, median.
    """

    best: tuple[float, ...]
    counts: tuple[int, ...]
    low_counts: tuple[int, ...]
    decode_ms: float
    infer_ms: float


def check_answers(facts: AnswerFacts, confidence: float, most: int) -> Iterator[Finding]:
    """The threshold beside the scores.

    Args:
        facts: what was answered.
        confidence: configured threshold.
        most: configured `max_detections`.
    """
    name = "accuracy.confidence"
    empty = sum(count == 0 for count in facts.counts)
    best, mean = max(facts.best, default=0.0), float(np.mean(facts.counts or (0,)))
    full = float(np.mean([count >= most for count in facts.counts])) if facts.counts else 0.0
    pictures = len(facts.counts)
    scores = f"best score {best:.2f}, threshold {confidence:g}"
    if empty == pictures and best >= NEAR * confidence:
        yield Finding(
            name,
            "warn",
            f"nothing is found in any of {pictures} pictures, but nearly: {scores}",
            f"try models.<slot>.confidence: {max(LOWEST, round(best * 0.7, 3)):g}",
        )
    elif empty == pictures:
        yield Finding(
            name,
            "fail",
            f"nothing is found in any of {pictures} pictures: {scores}",
            "these pictures show nothing that the model knows, or its input is prepared wrongly: "
            "see accuracy.input and accuracy.scaling",
        )
    elif full >= FULL:
        yield Finding(
            name,
            "fail",
            f"the limit of {most} objects is reached in {full:.0%} of the pictures: {scores}",
            "raise models.<slot>.confidence; if nearly all of it is wrong, the input is: see "
            "accuracy.input",
        )
    elif mean > CROWD:
        yield Finding(
            name,
            "warn",
            f"{mean:.0f} objects a picture on average: {scores}",
            "if these are not real, raise models.<slot>.confidence",
        )
    else:
        low = float(np.mean(facts.low_counts or (0,)))
        yield Finding(
            name,
            "ok",
            f"{mean:.1f} objects a picture, none in {empty} of {pictures}; {scores}; "
            f"{low:.0f} would be found from {LOWEST:g} on",
        )


def check_decode(facts: AnswerFacts) -> Iterator[Finding]:
    """Time for reading the answers, beside that for giving them."""
    share = facts.decode_ms / max(facts.infer_ms, 1e-6)
    what = (
        f"decoding takes {facts.decode_ms:.2f} ms, {share:.0%} of an inference's "
        f"{facts.infer_ms:.2f} ms"
    )
    if share > SLOW_DECODE:
        yield Finding(
            "speed.decode",
            "warn",
            what,
            "raise models.<slot>.confidence: fewer candidates reach the suppression of overlaps",
        )
    else:
        yield Finding("speed.decode", "ok", what)
