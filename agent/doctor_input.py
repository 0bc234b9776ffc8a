"""Is a picture's way to the network right: scale, normalisation, geometry?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.check import Finding
from agent.doctor_plain import plain_picture
from agent.vision.preprocess import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from engines.graphfacts import InputSteps
    from engines.model import ModelInfo

EQUAL_LEVELS = 1.0
"""Grey levels of 255 by which two correct implementations differ: rounding, and OpenCV's weights of
11 bits."""

ROUGH_LEVELS = 3.0

TINY, HUGE = 0.05, 16.0
"""Largest value that a network sees, below or above which its scale is surely wrong."""

FROM_255 = "[0.00392157, 0.00392157, 0.00392157]"

SCALE_KEY = f"models.<slot>.std: {FROM_255}"


def check_steps(steps: InputSteps, info: ModelInfo) -> Iterator[Finding]:
    """What the graph does to its image by itself, beside what the agent does before it."""
    name = "accuracy.scaling"
    raw = info.input.dtype == np.uint8 or min(info.std) < TINY
    normalised = any(info.mean) or any(s != 1.0 for s in info.std)
    if steps.scales and not raw:
        yield Finding(
            name,
            "fail",
            f"scaled twice: the graph has a {steps.scales[0]} of its own, and the agent gives 0..1 "
            "as well, so the network sees 0..0.004",
            f"set {SCALE_KEY}, or export the model without that node",
        )
    elif len(steps.scales) > 1:
        yield Finding(
            name,
            "fail",
            f"scaled twice inside the graph: {' and '.join(steps.scales)}",
            "export the model with one of them",
        )
    elif steps.shifts and normalised and not raw:
        yield Finding(
            name,
            "fail",
            f"normalised twice: the graph has a {steps.shifts[0]} of its own, and the "
            "configuration sets mean and std",
            "remove models.<slot>.mean and std",
        )
    else:
        inside = [*steps.scales, *steps.shifts, *steps.swaps]
        yield Finding(
            name,
            "ok",
            f"in the graph: {', '.join(inside)}" if inside else "all of it done by the agent, once",
        )


def check_seen(values: NDArray[np.float32]) -> Iterator[Finding]:
    """The range of what the network is given.

    Args:
        values: inputs, float32 [n, 3, H, W].
    """
    low, high = float(values.min()), float(values.max())
    means = ", ".join(f"{value:.2f}" for value in values.mean(axis=(0, 2, 3)))
    what = f"the network sees {low:.3g} to {high:.3g}, mean of red, green, blue {means}"
    wrong = max(abs(low), abs(high)) < TINY or (max(abs(low), abs(high)) > HUGE and high < 200)  # noqa: PLR2004 - more is 0..255
    yield Finding(
        "accuracy.range",
        "warn" if wrong else "ok",
        what,
        "check models.<slot>.mean and std" if wrong else "",
    )


def parity_levels(pictures: Sequence[NDArray[np.uint8]], info: ModelInfo) -> float:
    """Largest difference of the agent's preprocessing to the plain one, grey levels of 255."""
    worst = 0.0
    preprocessor = Preprocessor(info.resize, info.width, info.height)
    out = np.empty((info.height, info.width, 3), np.uint8)
    for picture in pictures:
        preprocessor.write(picture, out)
        worst = max(worst, float(np.abs(plain_picture(picture, info) - out).max()))
    return worst


def check_parity(levels: float) -> Iterator[Finding]:
    """The agent's resizing beside a plain one in numpy."""
    what = f"resizing differs from a plain one in numpy by {levels:.2f}/255 at the most"
    if levels <= EQUAL_LEVELS:
        yield Finding("accuracy.resizing", "ok", what)
    else:
        yield Finding(
            "accuracy.resizing",
            "warn" if levels <= ROUGH_LEVELS else "fail",
            what,
            "this OpenCV resizes in another way (a vendor's build?): install another and compare",
        )
