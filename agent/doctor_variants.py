"""Which preparation of its input does a model answer best to? Found out without ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.check import Finding
from agent.doctor_input import SCALE_KEY
from agent.doctor_plain import plain_input
from agent.errors import OutputError
from agent.vision.agreement import pairs
from agent.vision.preprocess import place
from engines.model import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.detection import Detections
    from agent.vision.decode import Decoder
    from engines.model import ModelInfo

Run = Callable[["NDArray[np.float32]"], "Mapping[str, NDArray[Any]]"]
"""Runs the model as it stands in its file: float32 RGB [1, 3, H, W] in, outputs by name."""

PLAIN = "RGB 0..1"
CONFIGURED = "configured"

BUDGET_S = 15.0
"""Variants are tried on as many pictures as fit into this, but on two at least."""

LEAST_PICTURES = 2

CLEARLY_BETTER = 0.02
"""By how much another variant's agreement must be better..."""

HALVED = 0.6
"""... and to which part it must bring down what is missing to full agreement."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to prepare the input than the configured one.

    Attributes:
        name: for people.
        change: from RGB 0..1 to what the network is given.
        fix: what to do if it is the right one.
    """

    name: str
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    fix: str


def variants() -> tuple[Variant, ...]:
    """The usual mistakes; each network was trained with one of these."""
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    swap = "export the model for RGB: turn the channels of its first layer's weights"
    return (
        Variant(PLAIN, lambda x: x, "remove models.<slot>.mean and std"),
        Variant("BGR 0..1, channels swapped", lambda x: x[:, ::-1], swap),
        Variant("RGB 0..255, not scaled", lambda x: x * 255, f"set {SCALE_KEY}"),
        Variant(
            "BGR 0..255, neither scaled nor RGB",
            lambda x: x[:, ::-1] * 255,
            f"set {SCALE_KEY}; and {swap}",
        ),
        Variant(
            "RGB divided by 255 twice",
            lambda x: x * np.float32(1 / 255),
            "the first layer's weights are 255 times too large: export the model again",
        ),
        Variant(
            "RGB -1..1",
            lambda x: x * 2 - 1,
            "set models.<slot>.mean: [0.5, 0.5, 0.5] and std: [0.5, 0.5, 0.5]",
        ),
        Variant(
            "RGB with ImageNet's mean and deviation",
            lambda x: (x - mean) / std,
            "set models.<slot>.mean: [0.485, 0.456, 0.406] and std: [0.229, 0.224, 0.225]",
        ),
    )


def flip_agreement(
    run: Run,
    decoder: Decoder,
    info: ModelInfo,
    picture: NDArray[np.uint8],
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> float:
    """How far a model finds the same in a picture and in its mirror image, 0..1.

    No ground truth is needed: a network that is given what it was trained on answers alike, one
    that is not finds little, or things that depend on which way round the picture is. Twice the
    pairs of one class that overlap, by all that was found; 0 if nothing was found.
    """
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    found = []
    for pixels in (picture, mirrored):
        image = plain_input(pixels, _unnormalised(info))
        placement = place(pixels.shape[1], pixels.shape[0], info.width, info.height, info.resize)
        try:
            found.append(decoder(run(np.ascontiguousarray(change(image))), 0, placement))
        except OutputError:
            return 0.0
    if info.task is Task.CLASSIFY:
        return _same_class(*found)
    boxes = found[1].boxes.copy()
    boxes[:, [0, 2]] = picture.shape[1] - boxes[:, [2, 0]]
    rotated = found[1].rotated
    if rotated is not None:
        rotated = rotated * np.array([-1, 1, 1, 1, -1], np.float32)
        rotated[:, 0] += picture.shape[1]
    back = type(found[1])(
        boxes=boxes, scores=found[1].scores, class_ids=found[1].class_ids, rotated=rotated
    )
    total = len(found[0]) + len(back)
    return 2 * len(pairs(found[0], back)) / total if total else 0.0


def _same_class(first: Detections, second: Detections) -> float:
    """A classifier's agreement: the lower of its two best scores, if they are of one class."""
    if not len(first) or not len(second) or first.class_ids[0] != second.class_ids[0]:
        return 0.0
    return float(min(first.scores[0], second.scores[0]))


def try_variants(
    run: Run,
    decoder: Decoder,
    info: ModelInfo,
    pictures: Sequence[NDArray[np.uint8]],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, float]:
    """Mean agreement of the configured preparation (`CONFIGURED`) and of the usual mistakes."""
    mean = np.array(info.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(info.std, np.float32).reshape(1, 3, 1, 1)
    tried = {variant.name: variant.change for variant in variants()}
    plain = not mean.any() and bool((std == 1).all())
    if not plain:
        tried[CONFIGURED] = lambda x: (x - mean) / std
    sums = dict.fromkeys(tried, 0.0)
    began, count = clock(), 0
    for count, picture in enumerate(pictures, start=1):
        for name, change in tried.items():
            sums[name] += flip_agreement(run, decoder, info, picture, change)
        if count >= LEAST_PICTURES and clock() - began > BUDGET_S:
            break
    agreements = {name: total / max(1, count) for name, total in sums.items()}
    return {CONFIGURED: agreements[PLAIN], **agreements}


def check_variants(agreements: Mapping[str, float]) -> Iterator[Finding]:
    """Whether the model answers better if its input is prepared in another way.

    Args:
        agreements: as `try_variants` gives them.
    """
    name = "accuracy.input"
    mine = agreements[CONFIGURED]
    best = max((v for v in variants() if v.name in agreements), key=lambda v: agreements[v.name])
    theirs = agreements[best.name]
    if theirs >= mine + CLEARLY_BETTER and 1 - theirs <= HALVED * (1 - mine):
        yield Finding(
            name,
            "fail" if mine < theirs / 2 else "warn",
            f"the model answers more steadily to {best.name} ({theirs:.0%} the same in the mirror "
            f"image) than to what it is given ({mine:.0%})",
            best.fix,
        )
    elif not theirs and not mine:
        yield Finding(
            name,
            "warn",
            "nothing is found in these pictures, however their channels and scale are changed",
            "are these pictures of what the model was trained for? Is the confidence too high?",
        )
    else:
        yield Finding(
            name,
            "ok",
            f"no other scale or channel order suits the model better ({mine:.0%} of what is found "
            "is the same in the mirror image)",
        )


def _unnormalised(info: ModelInfo) -> ModelInfo:
    """The same model with an input of 0..1."""
    return replace(
        info,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        input=replace(info.input, dtype=np.dtype(np.float32)),
    )
