"""Pictures to calibrate a quantised model with, and others, held out, to judge every engine by.

They are prepared by the pipeline's own `Preprocessor`, so a model is calibrated and judged on
exactly what it will be given.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.picturechoice import choose, spread
from agent.picturesource import open_source
from agent.vision.preprocess import BORDER, Placement, Preprocessor, place
from engines.errors import CalibrationError
from engines.model import Resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.picturechoice import Choice
    from agent.picturesource import PictureSource
    from engines.images import Images
    from engines.model import ModelInfo

log = logging.getLogger(__name__)

RECIPE = "vigia.pictures/1"
"""Changes with the way pictures are chosen or prepared, so that old digests fit no more."""

MIN_PICTURES = 12
"""Fewer than this, calibration and held-out ones together, say too little of a camera."""

MIN_SHARE = 0.5
"""Least share of the chosen pictures that must be readable."""

FLAT = 2
"""Grey levels between a picture's darkest and brightest sample, at most, if it shows one colour."""

SAMPLED = 16
"""Pixels from one that is looked at first to the next."""

KEPT_BYTES = 256 * 2**20
"""Prepared pictures that stay in memory at the most; the others are decoded at each pass."""

NAMED = 5
"""Pictures named in a message."""

PROBES = 8
"""Synthetic pictures, where no others are given."""

PROBE_SHAPES = 24
"""Shapes drawn into a synthetic picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One prepared picture.

    Attributes:
        key: what ground truth calls it: a file's name, or a frame's number in a video.
        pixels: uint8 BGR [height, width, 3] at the model's input size.
        placement: how the original lies in it.
    """

    key: str
    pixels: NDArray[np.uint8]
    placement: Placement


class PictureSet:
    """Prepared pictures in a fixed order; implements `engines.images.Images`.

    Args:
        source: where they are read again if they are not kept.
        info: the model they are prepared for.
        indices: the readable candidates that belong to the set.
        digest: of content and choice.
        kept: prepared pictures by candidate, as far as memory is to be spent on them.
    """

    def __init__(
        self,
        source: PictureSource,
        info: ModelInfo,
        indices: Sequence[int],
        digest: str,
        kept: dict[int, Picture],
    ) -> None:
        self.digest = digest
        self.info = info
        self._source = source
        self._indices = tuple(indices)
        self._kept = {index: kept[index] for index in self._indices if index in kept}

    @property
    def keys(self) -> tuple[str, ...]:
        """What ground truth calls the pictures."""
        return tuple(self._source.key(index) for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (picture.pixels for picture in self.placed())

    def prepared_for(self, info: ModelInfo, limit: int | None = None) -> PictureSet:
        """The same pictures prepared for another model; `limit` takes so many of them, evenly."""
        chosen = self._indices if limit is None else spread(self._indices, limit)
        same = (info.width, info.height, info.resize) == (
            self.info.width,
            self.info.height,
            self.info.resize,
        )
        options = [self.digest, list(chosen), info.width, info.height, info.resize.value]
        digest = f"sha256:{hashlib.sha256(json.dumps(options).encode()).hexdigest()}"
        return PictureSet(self._source, info, chosen, digest, self._kept if same else {})

    def placed(self) -> Iterator[Picture]:
        """Give the pictures with their placements.

        Raises:
            CalibrationError: one cannot be read any more.
        """
        absent = [index for index in self._indices if index not in self._kept]
        again = _prepared(self._source, self.info, absent)
        for index in self._indices:
            if index in self._kept:
                yield self._kept[index]
                continue
            found = next(again)
            if isinstance(found, str):
                raise CalibrationError(
                    f"picture {self._source.key(index)} cannot be read any more: {found}; "
                    "leave the pictures alone while an engine is built"
                )
            yield found[0]


class ProbeSet:
    """Synthetic pictures; implements `engines.images.Images`.

    Args:
        pictures: uint8 BGR [height, width, 3].
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self._pictures = tuple(pictures)
        total = hashlib.sha256(RECIPE.encode())
        for picture in self._pictures:
            total.update(picture.tobytes())
        self.digest = f"sha256:{total.hexdigest()}"

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return iter(self._pictures)


def pictures(path: Path, info: ModelInfo, limit: int) -> tuple[PictureSet, PictureSet]:
    """Read and prepare the pictures of a folder or a video.

    Of a folder, the picture files that lie in it itself count, in order of their names. Every
    chosen picture is decoded once here, so that unusable ones are known before anything is built.

    Args:
        path: folder of pictures, or a video file.
        info: the model; gives size and resize.
        limit: calibration pictures at the most.

    Returns:
        Those to calibrate with, and those held out: disjoint, each spread over all.

    Raises:
        CalibrationError: too few can be read, or all show one colour.
    """
    source = open_source(path)
    choice = choose(source.count, limit, source.gap)
    digests = _digests(source, choice, info, limit)
    kept: dict[int, Picture] = {}
    good: list[int] = []
    faults: list[str] = []
    flat = room = 0
    for index, found in zip(choice.all, _prepared(source, info, choice.all), strict=True):
        if isinstance(found, str):
            faults.append(f"{source.key(index)}: {found}")
            continue
        picture, is_flat = found
        good.append(index)
        flat += is_flat
        room += picture.pixels.nbytes
        if room <= KEPT_BYTES:
            kept[index] = picture
    _require_usable(path, len(good), faults, flat)
    usable = set(good)
    calibration, held_out = (
        PictureSet(source, info, [i for i in part if i in usable], digest, kept)
        for part, digest in zip((choice.calibration, choice.held_out), digests, strict=True)
    )
    return calibration, held_out


def pictures_digest(path: Path, info: ModelInfo, limit: int) -> str:
    """Digest of everything that `pictures` with the same arguments depends on; decodes nothing.

    Raises:
        CalibrationError: there are no pictures, or a file cannot be read.
    """
    source = open_source(path)
    both = _digests(source, choose(source.count, limit, source.gap), info, limit)
    return f"sha256:{hashlib.sha256(' '.join(both).encode()).hexdigest()}"


def probe_pictures(info: ModelInfo) -> Images:
    """Synthetic pictures for models that no others are given for: shapes on shaded ground.

    They are the same on every machine up to the rounding of OpenCV's drawing. An engine that is
    wrong in floating point is wrong on them too; ranges for int8 cannot be found with them.
    """
    random = np.random.default_rng(0)
    return ProbeSet([_probe(random, info.width, info.height) for _ in range(PROBES)])


def placed(images: Images, info: ModelInfo) -> Iterator[Picture]:
    """Pictures with their placements; those that have none are taken as they are.

    Raises:
        CalibrationError: one cannot be read any more.
    """
    if isinstance(images, PictureSet):
        yield from images.placed()
        return
    whole = place(info.width, info.height, info.width, info.height, Resize.STRETCH)
    for number, pixels in enumerate(images):
        yield Picture(str(number), pixels, whole)


def _digests(source: PictureSource, choice: Choice, info: ModelInfo, limit: int) -> tuple[str, str]:
    """Of the calibration and of the held-out pictures."""
    options = [RECIPE, limit, source.count, info.width, info.height, info.resize.value]
    texts = []
    for use, part in (("calibration", choice.calibration), ("held-out", choice.held_out)):
        total = hashlib.sha256(json.dumps([*options, use, part]).encode())
        source.hash(total.update, part)
        texts.append(f"sha256:{total.hexdigest()}")
    return texts[0], texts[1]


def _prepared(
    source: PictureSource, info: ModelInfo, chosen: Sequence[int]
) -> Iterator[tuple[Picture, bool] | str]:
    """Each chosen picture and whether it shows one colour, or why it cannot be used."""
    preprocessor = Preprocessor(info.resize, info.width, info.height)
    for index, original in zip(chosen, source.read(chosen), strict=True):
        if isinstance(original, str):
            yield original
            continue
        out = np.empty((info.height, info.width, 3), np.uint8)
        placement = preprocessor.write(original, out)
        out.flags.writeable = False
        yield Picture(source.key(index), out, placement), _is_flat(original)


def _is_flat(pixels: NDArray[np.uint8]) -> bool:
    few = pixels[::SAMPLED, ::SAMPLED]
    # Most pictures betray themselves at once; all pixels of every one would take most of the time.
    return all(
        bool((part.max(axis=(0, 1)) - part.min(axis=(0, 1)) <= FLAT).all())
        for part in (few, pixels)
    )


def _require_usable(path: Path, good: int, faults: Sequence[str], flat: int) -> None:
    listed = "; ".join(faults[:NAMED])
    more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    if faults:
        log.warning("pictures %s: %d cannot be used: %s%s", path, len(faults), listed, more)
    total = good + len(faults)
    told = f" ({len(faults)} cannot be used: {listed}{more})" if faults else ""
    if good < MIN_PICTURES:
        raise CalibrationError(
            f"pictures {path}: {good} of {total} can be used{told}; at least {MIN_PICTURES} are "
            "needed, some hundreds are better: `vigia model collect` makes them"
        )
    if good < MIN_SHARE * total:
        raise CalibrationError(
            f"pictures {path}: only {good} of {total} can be used{told}; "
            "remove or replace what is broken"
        )
    if flat == good:
        raise CalibrationError(
            f"pictures {path}: every picture shows one colour only; "
            "is the lens covered? Give pictures of what the camera sees at work"
        )


def _probe(random: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    corners = random.integers(BORDER // 2, BORDER * 2, (2, 2, 3)).astype(np.uint8)
    picture = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(PROBE_SHAPES):
        x, y = int(random.integers(width)), int(random.integers(height))
        shares = random.uniform(0.02, 0.2, 2)
        rx, ry = max(1, int(width * shares[0])), max(1, int(height * shares[1]))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        if random.random() < 0.5:  # noqa: PLR2004 - as many of one kind as of the other
            cv2.rectangle(picture, (x - rx, y - ry), (x + rx, y + ry), colour, -1)
        else:
            angle = float(random.uniform(0, 180))
            cv2.ellipse(picture, (x, y), (rx, ry), angle, 0, 360, colour, -1)
    noise = random.normal(0, 4, picture.shape)
    return np.asarray(np.clip(picture + noise, 0, 255), np.uint8)
