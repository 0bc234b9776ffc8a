"""Are the pictures such as a model can see something in, and how do they fit its input?"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from agent.check import Finding
from engines.model import Resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from engines.model import ModelInfo

FLAT = 2.0
"""Standard deviation in grey levels up to which a picture shows one colour."""

DARK, BRIGHT = 35.0, 220.0
"""Mean grey level below or above which little is to be seen."""

LOW_CONTRAST = 12.0
"""Standard deviation in grey levels: fog, a dirty lens, a wrong gamma."""

BLACK, WHITE = 1, 254
CLIPPED_SHARE = 0.25
"""Share of samples that are black or white from which detail is lost."""

COLOURLESS = 2.0
"""Mean difference of a pixel's channels, grey levels, up to which a picture is grey."""

UPSCALED = 1.5
"""A picture that is enlarged more than this has less detail than the model was trained with."""

DOWNSCALED = 4.0
SMALL_OBJECT = 8
"""Pixels of the input that an object must have across for a detector to find it."""

PADDING_SHARE = 0.35
"""More of the input than this empty, and it costs time for nothing."""

DISTORTED = 1.35
"""Change of the aspect ratio by stretching that a model does not forgive."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Of one picture, in grey levels 0..255.

    Attributes:
        width: pixels.
        height: pixels.
        mean: over all samples.
        contrast: standard deviation over all samples.
        black: share of samples that are black, 0..1.
        white: share of samples that are white.
        colour: mean difference between the highest and the lowest channel of a pixel.
    """

    width: int
    height: int
    mean: float
    contrast: float
    black: float
    white: float
    colour: float


def measure(picture: NDArray[np.uint8]) -> PictureFacts:
    """Look at a picture: BGR, uint8, [h, w, 3]."""
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    return PictureFacts(
        picture.shape[1],
        picture.shape[0],
        float(picture.mean()),
        float(picture.std()),
        float((picture <= BLACK).mean()),
        float((picture >= WHITE).mean()),
        float(spread.mean()),
    )


def check_pictures(facts: Sequence[PictureFacts]) -> Iterator[Finding]:
    """Light, contrast, colour."""
    name = "accuracy.pictures"
    flat = sum(fact.contrast <= FLAT for fact in facts)
    if flat == len(facts):
        yield Finding(
            name,
            "fail",
            "every picture shows one colour only",
            "is the lens covered or the cap on?",
        )
        return
    sound = True
    for finding in _light(name, facts, flat):
        sound = False
        yield finding
    if sound:
        yield Finding(
            name,
            "ok",
            f"{len(facts)} looked at: mean {_median(facts, 'mean'):.0f} of 255, "
            f"contrast {_median(facts, 'contrast'):.0f}",
        )


def _light(name: str, facts: Sequence[PictureFacts], flat: int) -> Iterator[Finding]:
    mean, contrast = _median(facts, "mean"), _median(facts, "contrast")
    if flat:
        yield Finding(
            name,
            "warn",
            f"{flat} of {len(facts)} show one colour only",
            "does the camera drop out, or the decoder give grey frames?",
        )
    if mean < DARK:
        yield Finding(
            name, "warn", f"they are dark: mean {mean:.0f} of 255", "more light, or exposure"
        )
    elif mean > BRIGHT:
        yield Finding(
            name, "warn", f"they are overexposed: mean {mean:.0f} of 255", "lower the exposure"
        )
    if flat < len(facts) and FLAT < contrast < LOW_CONTRAST:
        yield Finding(
            name,
            "warn",
            f"they have little contrast: deviation {contrast:.0f} of 255",
            "clean the lens; look for fog, backlight, a wrong gamma",
        )
    for what, share in (("black", _median(facts, "black")), ("white", _median(facts, "white"))):
        if share > CLIPPED_SHARE:
            yield Finding(
                name,
                "warn",
                f"{share:.0%} of the samples are plain {what}: what is there is lost",
                "correct the exposure, or crop what is not wanted (cameras.<name>.crop)",
            )
    if all(fact.colour <= COLOURLESS for fact in facts):
        yield Finding(
            name,
            "warn",
            "they are without colour",
            "a camera in night mode? A model trained on colour loses accuracy on grey",
        )


def check_fit(facts: Sequence[PictureFacts], info: ModelInfo) -> Iterator[Finding]:
    """How the pictures' size goes with the input's."""
    name = "accuracy.size"
    width, height = int(_median(facts, "width")), int(_median(facts, "height"))
    scale_x, scale_y = info.width / width, info.height / height
    scale = min(scale_x, scale_y) if info.resize is Resize.LETTERBOX else max(scale_x, scale_y)
    shape = f"{width}x{height} pictures for an input of {info.width}x{info.height}"
    told = list(_misfits(name, shape, scale, scale_x, scale_y, info))
    yield from told
    if not any(finding.name == name for finding in told):
        yield Finding(name, "ok", f"{shape}, {_scaled(scale)}")


def _misfits(
    name: str, shape: str, scale: float, scale_x: float, scale_y: float, info: ModelInfo
) -> Iterator[Finding]:
    if scale > UPSCALED:
        yield Finding(
            name,
            "warn",
            f"{shape}: {_scaled(scale)}, which adds no detail",
            "take the camera's larger picture, or run the model at a smaller size",
        )
    elif scale < 1 / DOWNSCALED:
        yield Finding(
            name,
            "warn",
            f"{shape}: {_scaled(scale)}, so what is less than {SMALL_OBJECT / scale:.0f} pixels "
            "across in the picture cannot be found",
            "crop to what matters (cameras.<name>.crop), or run the model at a larger size",
        )
    if info.resize is Resize.LETTERBOX:
        padding = 1 - scale * scale / (scale_x * scale_y)
        if padding > PADDING_SHARE:
            yield Finding(
                "speed.padding",
                "warn",
                f"{shape}: {padding:.0%} of the input is empty border",
                _narrower(info, scale_x, scale_y),
            )
    elif info.resize is Resize.STRETCH:
        change = max(scale_x / scale_y, scale_y / scale_x)
        if change > DISTORTED:
            yield Finding(
                name,
                "warn",
                f"{shape}: stretching changes the aspect ratio by {change:.2f}",
                "was the model trained so? If not, set models.<slot>.resize: letterbox",
            )
    else:
        lost = 1 - min(scale_x, scale_y) / max(scale_x, scale_y)
        if lost > PADDING_SHARE:
            yield Finding(
                name,
                "warn",
                f"{shape}: {lost:.0%} of the picture is cut off",
                "crop to what matters (cameras.<name>.crop), or set models.<slot>.resize",
            )


def _narrower(info: ModelInfo, scale_x: float, scale_y: float) -> str:
    """An input with less border, where the model allows other sizes."""
    if None not in info.input.shape[2:]:
        return "export the model with an input of the pictures' shape, or with dynamic=True"
    step = info.stride
    if scale_x < scale_y:
        height = max(step, -(-int(info.height * scale_x / scale_y) // step) * step)
        return f"set models.<slot>.input_height: {height}"
    width = max(step, -(-int(info.width * scale_y / scale_x) // step) * step)
    return f"set models.<slot>.input_width: {width}"


def _scaled(scale: float) -> str:
    if abs(scale - 1) < 0.01:  # noqa: PLR2004 - a pixel in a hundred
        return "not scaled"
    return f"enlarged {scale:.2f} x" if scale > 1 else f"reduced {1 / scale:.2f} x"


def _median(facts: Sequence[PictureFacts], what: str) -> float:
    return float(statistics.median(getattr(fact, what) for fact in facts))
