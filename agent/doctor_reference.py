"""Does the model give what its reference gives: another file, or recorded arrays?"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.check import Finding
from agent.doctor_plain import plain_input
from agent.errors import ConfigError
from agent.vision.parts import split
from engines.compare import Comparison, OutputsDifferError
from engines.model import Resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from engines.compare import TensorFigures
    from engines.model import ModelInfo
    from engines.orttensors import Difference

PICTURE = "picture"
"""Name of the array in a recording that holds the original picture: uint8 BGR [h, w, 3]."""

MIN_COSINE = {"int8": 0.99}
DEFAULT_COSINE = 0.999
"""Least cosine of scores and boxes with the reference's, as the gate has it."""

EQUAL_INPUT = 1.5 / 255
"""Difference of two inputs of 0..1 that rounding explains."""

NEARLY = 4.0
"""An explanation must leave less than a part in this many of the difference."""


def compare_outputs(
    info: ModelInfo,
    pairs: Sequence[tuple[Mapping[str, NDArray[Any]], Mapping[str, NDArray[Any]]]],
) -> dict[str, TensorFigures]:
    """Figures of scores, boxes and other outputs over pictures.

    Args:
        info: the model.
        pairs: the reference's outputs and the model's, for each picture.

    Raises:
        ConfigError: names or shapes differ.
    """
    comparison = Comparison()
    try:
        for reference, candidate in pairs:
            comparison.add(split(info, reference, 0), split(info, candidate, 0))
    except (OutputsDifferError, KeyError, StopIteration) as error:
        raise ConfigError(
            f"the reference's outputs are not this model's: {error}; "
            "give a reference of the same model"
        ) from error
    return comparison.figures()


def check_outputs(
    name: str,
    what: str,
    figures: Mapping[str, TensorFigures],
    precision: str,
    fix: str,
) -> Iterator[Finding]:
    """Whether the figures are good enough for a precision."""
    least = MIN_COSINE.get(precision, DEFAULT_COSINE)
    worst = min(figures, key=lambda part: (figures[part].finite, figures[part].cosine))
    told = "; ".join(
        f"{part}: cosine {value.cosine:.5f}, largest difference {value.max_abs:.3g}"
        for part, value in figures.items()
    )
    if not figures[worst].finite:
        yield Finding(name, "fail", f"{what}: {worst} has values that are not finite", fix)
    elif figures[worst].cosine < least:
        yield Finding(name, "fail", f"{what} differs: {told} (cosine {least} is needed)", fix)
    else:
        yield Finding(name, "ok", f"{what} agrees: {told}")


def parting(difference: Difference | None) -> str:
    """Where two files of a model part, to be added to a finding; empty if that is not known."""
    if difference is None:
        return ""
    before = difference.compared - 1
    return (
        f"; they part at {difference.op} {difference.node}, by {difference.relative:.2g} of its "
        f"largest value, after {before} tensors that are the same"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What another program gave its model and got from it.

    Attributes:
        image: the input as the file's model takes it, [1, 3, H, W].
        outputs: by name.
        picture: the picture that it was made of, BGR uint8 [h, w, 3], if it was recorded.
    """

    image: NDArray[Any]
    outputs: Mapping[str, NDArray[Any]]
    picture: NDArray[np.uint8] | None


def read_recording(path: Path, info: ModelInfo) -> Recording:
    """Read an `.npz`: arrays by the names of the model's input and outputs, and maybe `picture`.

    Raises:
        ConfigError: it cannot be read, or has not these arrays.
    """
    try:
        # Opened here, since numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            arrays = {str(name): np.asarray(file[name]) for name in file}
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise ConfigError(f"--reference {path}: cannot be read as .npz: {error}") from error
    wanted = [info.input.name, *(output.name for output in info.outputs)]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ConfigError(
            f"--reference {path}: has {', '.join(arrays) or 'nothing'}, not {', '.join(missing)}; "
            f"save the model's input and outputs by their names with numpy.savez"
        )
    shape = (1, 3, info.height, info.width)
    if arrays[info.input.name].shape != shape:
        raise ConfigError(
            f"--reference {path}: {info.input.name} has shape "
            f"{list(arrays[info.input.name].shape)}, not {list(shape)}"
        )
    picture = arrays.get(PICTURE)
    if picture is not None and (picture.dtype != np.uint8 or picture.ndim != 3):  # noqa: PLR2004 - h, w, 3
        raise ConfigError(f"--reference {path}: {PICTURE} must be uint8 BGR [h, w, 3]")
    outputs = {output.name: arrays[output.name] for output in info.outputs}
    return Recording(arrays[info.input.name], outputs, picture)


def explain_input(
    picture: NDArray[np.uint8], theirs: NDArray[Any], info: ModelInfo
) -> tuple[float, str]:
    """How another program's input differs from ours of the same picture, and what explains it.

    Args:
        picture: BGR, uint8, [h, w, 3].
        theirs: [1, 3, H, W].
        info: the model.

    Returns:
        Mean difference in units of 0..1, and the explanation, or "" if there is none.
    """
    ours = plain_input(picture, info)
    other = theirs.astype(np.float32)
    apart = _apart(ours, other)
    if float(np.abs(ours - other).max()) <= EQUAL_INPUT:
        return apart, ""
    zero_to_one = plain_input(picture, replace(info, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    guesses: dict[str, NDArray[np.float32]] = {
        "its channels are in the other order": ours[:, ::-1],
        "it is not scaled: 0..255": zero_to_one * 255,
        "it is BGR and not scaled": zero_to_one[:, ::-1] * 255,
        "it is 0..1 without mean and deviation": zero_to_one,
        "it is divided by 255 twice": zero_to_one * np.float32(1 / 255),
        "it is -1..1": zero_to_one * 2 - 1,
    }
    for resize in Resize:
        if resize is not info.resize:
            fitted = plain_input(picture, replace(info, resize=resize))
            guesses[f"the picture is fitted in another way: {resize.value}"] = fitted
            guesses[f"{resize.value} instead of {info.resize.value}, and BGR"] = fitted[:, ::-1]
    best = min(guesses, key=lambda guess: _apart(guesses[guess], other) / _size(guesses[guess]))
    left = _apart(guesses[best], other) / _size(guesses[best])
    return apart, best if left < apart / _size(ours) / NEARLY else ""


def check_recorded_input(apart: float, explanation: str) -> Iterator[Finding]:
    """Whether another program prepared the recorded picture as the agent does."""
    name = "accuracy.preprocessing"
    if not explanation and apart <= EQUAL_INPUT:
        yield Finding(
            name, "ok", f"the recorded input is what the agent makes of the picture ({apart:.5f})"
        )
    elif explanation:
        yield Finding(
            name,
            "fail",
            f"the recorded input is another than the agent's: {explanation}",
            "one of the two is not what the model was trained with: set resize, mean and std of "
            "models.<slot>, or mend the other program",
        )
    else:
        yield Finding(
            name,
            "warn",
            f"the recorded input differs from the agent's by {apart:.4f} in the mean, and neither "
            "scale, channels nor fit explain it",
            "another interpolation or another border colour? Compare the two as pictures",
        )


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())


def _size(a: NDArray[np.float32]) -> float:
    """Differences of inputs on different scales are compared by their size."""
    return max(float(np.abs(a).mean()), 1e-6)
