"""Says what two engines that disagree differ in: which known fault makes the first like the second.

Every fault is put into the first model in turn. The one that makes it answer what the second
answers is what the second suffers from, whatever library it runs on.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.answers import Answers
from agent.errors import OutputError
from agent.vision.decode import PostprocessSettings
from agent.vision.parts import SCORES
from engines import ort
from engines.backend import RunOptions
from engines.compare import Comparison
from engines.errors import EngineError
from engines.graph import bake
from engines.model import Resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from agent.answers import Answer
    from agent.calibration import Picture, PictureSet
    from engines.base import Engine
    from engines.model import ModelInfo

PICTURES = 6
"""Pictures that a fault is looked for with; it shows in each."""

LIKE = 0.98
"""Least cosine of every part at which two engines answer the same, quantised ones included."""

CLOSER = 4
"""With the fault, the first model must be so many times as near to the second as without."""

STRANGE = 0.3
"""Scores with less cosine than this have nothing to do with each other."""

STEPS = 256
"""Different values that an eight-bit tensor can have."""

PIXEL_MAX = 255.0

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What most classifiers are normalised with; torchvision's models document it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference in how pictures become the model's input.

    Attributes:
        sentence: what is wrong with the second engine if the first is like it with this fault.
        info: the first model, prepared with the fault.
        swapped: the first model is given RGB as if it were BGR.
    """

    sentence: str
    info: ModelInfo
    swapped: bool = False


def known_faults(info: ModelInfo) -> list[Fault]:
    """The faults that are tried, in order."""
    plain = not any(info.mean) and all(std == 1 for std in info.std)
    faults = [
        Fault("red and blue are swapped: one takes RGB where the other takes BGR", info, True),
        Fault(
            "its input is not divided by 255: it gets 0..255 where it was trained with 0..1",
            _rescaled(info, PIXEL_MAX),
        ),
        Fault(
            "its input is divided by 255 twice: the model does that itself, or mean and std are "
            "already in units of 0..255",
            _rescaled(info, 1 / PIXEL_MAX),
        ),
    ]
    if plain:
        usual = replace(info, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        faults.append(Fault("its input is normalised with ImageNet's mean and std", usual))
    else:
        bare = replace(info, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        faults.append(Fault("mean and std are not applied to its input", bare))
    faults += [
        Fault(
            f"frames are fitted to its input by {other.value}, not by {info.resize.value}",
            replace(info, resize=other),
        )
        for other in Resize
        if other is not info.resize
    ]
    return faults


def explain(
    read_model: Callable[[], onnx.ModelProto],
    info: ModelInfo,
    pictures: PictureSet,
    candidate: Engine,
    candidate_info: ModelInfo,
) -> list[str]:
    """Find what a candidate that fell suffers from.

    Args:
        read_model: reads the first model's file anew.
        info: the first model.
        pictures: those that were judged by, prepared for the first model.
        candidate: the second engine.
        candidate_info: its model.

    Returns:
        Sentences, the likeliest cause first; empty if nothing known explains it.

    Raises:
        EngineError: the first model's file or the pictures cannot be read any more.
    """
    few = pictures.prepared_for(info, PICTURES)
    settings = PostprocessSettings(confidence=1.0)
    try:
        with Answers(candidate, candidate_info, settings) as answers:
            found = [answers.of(p) for p in few.prepared_for(candidate_info).placed()]
    except (EngineError, OutputError):
        return []
    plain = Fault("", info)
    before = _likeness(read_model, plain, few, found)
    if before is None:
        return []
    tried = [(fault, _likeness(read_model, fault, few, found)) for fault in known_faults(info)]
    alike = [
        (c, fault.sentence)
        for fault, c in tried
        if c is not None and c >= LIKE and (1 - c) * CLOSER < 1 - before
    ]
    if alike:
        return [sentence for _, sentence in sorted(alike, key=lambda pair: -pair[0])]
    return list(_symptoms(found, before))


def _symptoms(found: Sequence[Answer], before: float) -> Iterator[str]:
    scores = np.concatenate([answer.parts[SCORES].ravel() for answer in found])
    values = len(np.unique(scores))
    if values <= STEPS < scores.size:
        yield (
            f"different values among its {scores.size} scores: {values}; the output itself is "
            "quantised: keep the model's last layers in floating point"
        )
    elif before < STRANGE:
        yield "no known fault explains it: it looks like an engine of another model"


def _likeness(
    read_model: Callable[[], onnx.ModelProto],
    fault: Fault,
    pictures: PictureSet,
    found: Sequence[Answer],
) -> float | None:
    """Least cosine of any part between the first model with a fault and what was found.

    None if they cannot be compared.
    """
    comparison = Comparison()
    with ExitStack() as stack:
        graph = bake(read_model(), fault.info).SerializeToString()
        engine = ort.load(graph, fault.info.precision, RunOptions())
        stack.callback(engine.close)
        settings = PostprocessSettings(confidence=1.0)
        answers = stack.enter_context(Answers(engine, fault.info, settings))
        prepared = pictures.prepared_for(fault.info).placed()
        try:
            for picture, other in zip(prepared, found, strict=True):
                given = _swapped(picture) if fault.swapped else picture
                comparison.add(answers.of(given).parts, other.parts)
        except (EngineError, OutputError):
            return None
    figures = comparison.figures().values()
    return min(f.cosine for f in figures) if all(f.finite for f in figures) else None


def _rescaled(info: ModelInfo, factor: float) -> ModelInfo:
    """The model given pixels that are `factor` times as large before mean and std."""
    mean = [m / factor for m in info.mean]
    std = [s / factor for s in info.std]
    return replace(info, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))


def _swapped(picture: Picture) -> Picture:
    pixels: NDArray[np.uint8] = np.ascontiguousarray(picture.pixels[..., ::-1])
    return replace(picture, pixels=pixels)
