"""Which preparation of its input does a model answer best to? Found out without ground truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.check import Finding
from agent.detection import Detections
from agent.doctor_input import SCALE_KEY
from agent.doctor_plain import plain_input
from agent.errors import OutputError
from agent.vision.agreement import pairs
from agent.vision.preprocess import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from agent.vision.decode import Decoder
    from engines.model import ModelInfo

Run = Callable[["NDArray[np.float32]"], "Mapping[str, NDArray[Any]]"]
"""Runs the model as it stands in its file: float32 RGB [1, 3, H, W] in, outputs by name."""

Change = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""From RGB 0..1, float32 [1, 3, H, W], to what a network is given."""

PLAIN = "RGB 0..1"
CONFIGURED = "configured"

BUDGET_S = 15.0
"""Variants are tried on as many pictures as fit into this, but on two at least."""

LEAST_PICTURES = 2

DEVIATIONS = 2.0
"""Another variant must miss fewer objects by this many standard deviations of the difference of two
counts, `sqrt(a + b)` for rare events..."""

HALVED = 0.6
"""... and this part of them at the most."""

FOUND = 0.2
"""Less than this, and the pictures cannot tell anything."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Another way to prepare the input than the configured one.

    Attributes:
        name: for people.
        change: from RGB 0..1 to what the network is given.
        fix: what to do if it is the right one.
    """

    name: str
    change: Change
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
            "set models.<slot>.std: [255, 255, 255]",
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


@dataclass(frozen=True, slots=True)
class Suit:
    """How well a way to prepare the input suits a model.

    Attributes:
        share: of what is found, that is steady and real, 0..1.
        objects: what that is a share of.
    """

    share: float
    objects: int


class Looker:
    """Looks for objects in one picture and in its mirror image, prepared in any way.

    Args:
        run: runs the model.
        decoder: at the configured thresholds.
        info: the model.
        picture: BGR, uint8, [h, w, 3].
    """

    def __init__(
        self, run: Run, decoder: Decoder, info: ModelInfo, picture: NDArray[np.uint8]
    ) -> None:
        self._run = run
        self._decoder = decoder
        plain = _unnormalised(info)
        high, self._width = picture.shape[:2]
        self._placement = place(self._width, high, info.width, info.height, info.resize)
        self._image = plain_input(picture, plain)
        self._mirrored = plain_input(np.ascontiguousarray(picture[:, ::-1]), plain)

    def count(self, change: Change) -> int:
        """Objects in the picture as it is."""
        return len(self._find(self._image, change))

    def agreement(self, change: Change) -> tuple[float, int]:
        """How far the same is found in the picture and in its mirror image.

        Returns:
            Twice the pairs of one class that overlap, by all that was found, 0..1 (0 if nothing
            was); and how many objects were found in both together.
        """
        found = self._find(self._image, change)
        mirrored = _mirrored(self._find(self._mirrored, change), self._width)
        total = len(found) + len(mirrored)
        return (2 * len(pairs(found, mirrored)) / total if total else 0.0), total

    def _find(self, image: NDArray[np.float32], change: Change) -> Detections:
        """Objects; none if the answer is no answer."""
        outputs = self._run(np.ascontiguousarray(change(image)))
        try:
            return self._decoder(outputs, 0, self._placement)
        except OutputError:
            return Detections.empty()


def try_variants(
    run: Run,
    decoder: Decoder,
    info: ModelInfo,
    pictures: Sequence[NDArray[np.uint8]],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Suit]:
    """How well each preparation of the input suits a detector, 0..1, without ground truth.

    A network that is given what it was trained on finds the same in a picture and in its mirror
    image. One that is not finds little, or things that depend on which way round the picture is, or
    it finds things where nothing is: so what it finds in a plain area of the pictures' mean colour
    is counted against it.

    Args:
        run: runs the model.
        decoder: at the configured thresholds.
        info: the model; no classifier, and with a floating-point input.
        pictures: BGR, uint8, [h, w, 3].
        clock: in seconds.

    Returns:
        By name: `CONFIGURED`, and the usual mistakes.
    """
    mean = np.array(info.mean, np.float32).reshape(1, 3, 1, 1)
    std = np.array(info.std, np.float32).reshape(1, 3, 1, 1)
    tried = {variant.name: variant.change for variant in variants()}
    if mean.any() or (std != 1).any():
        tried[CONFIGURED] = lambda x: (x - mean) / std
    agreements = dict.fromkeys(tried, 0.0)
    objects = dict.fromkeys(tried, 0)
    began, count = clock(), 0
    for count, picture in enumerate(pictures, start=1):
        looker = Looker(run, decoder, info, picture)
        for name, change in tried.items():
            agreement, found = looker.agreement(change)
            agreements[name] += agreement
            objects[name] += found
        if count >= LEAST_PICTURES and clock() - began > BUDGET_S:
            break
    colour = np.mean([picture.mean(axis=(0, 1)) for picture in pictures], axis=0)
    plain = np.broadcast_to(colour.astype(np.uint8), pictures[0].shape)
    empty = Looker(run, decoder, info, np.ascontiguousarray(plain))
    suits = {}
    for name, change in tried.items():
        invented = 2 * count * empty.count(change)
        real = 1 - min(1.0, invented / max(1, objects[name]))
        suits[name] = Suit(agreements[name] / count * real, objects[name])
    return {CONFIGURED: suits[PLAIN], **suits}


def check_variants(suits: Mapping[str, Suit]) -> Iterator[Finding]:
    """Whether the model answers better if its input is prepared in another way.

    Args:
        suits: as `try_variants` gives them.
    """
    name = "accuracy.input"
    mine = suits[CONFIGURED]
    best = max((v for v in variants() if v.name in suits), key=lambda v: suits[v.name].share)
    theirs = suits[best.name]
    if _clearly_better(theirs, mine):
        yield Finding(
            name,
            "fail" if mine.share < theirs.share / 2 else "warn",
            f"the model answers more steadily to {best.name} ({theirs.share:.0%} the same in the "
            f"mirror image) than to what it is given ({mine.share:.0%})",
            best.fix,
        )
    elif mine.share < FOUND:
        yield Finding(
            name,
            "warn",
            "hardly anything is found in these pictures, however their channels and scale are "
            "changed",
            "are these pictures of what the model was trained for? Is the confidence too high?",
        )
    else:
        yield Finding(
            name,
            "ok",
            f"no other scale or channel order suits the model better ({mine.share:.0%} of what is "
            "found is the same in the mirror image)",
        )


def _clearly_better(theirs: Suit, mine: Suit) -> bool:
    """Whether one way suits so much better than another that it is no chance."""
    objects = max(theirs.objects, mine.objects)
    missed, less = (1 - mine.share) * objects, (1 - theirs.share) * objects
    far = missed - less >= DEVIATIONS * math.sqrt(missed + less)
    return far and objects > 0 and less <= HALVED * missed


def _mirrored(found: Detections, width: int) -> Detections:
    """Boxes turned left to right in a picture of a width."""
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    rotated = found.rotated
    if rotated is not None:
        rotated = rotated * np.array([-1, 1, 1, 1, -1], np.float32)
        rotated[:, 0] += width
    return Detections(boxes=boxes, scores=found.scores, class_ids=found.class_ids, rotated=rotated)


def _unnormalised(info: ModelInfo) -> ModelInfo:
    """The same model with an input of 0..1."""
    return replace(
        info,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        input=replace(info.input, dtype=np.dtype(np.float32)),
    )
