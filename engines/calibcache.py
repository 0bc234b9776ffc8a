"""TensorRT's calibration cache as text, written from our own ranges.

Form, as TensorRT writes it: a first line `TRT-<version>-EntropyCalibration2`, then one line a
tensor, `<name>: <8 hexadecimal digits>`, the digits being the big-endian float32 of the scale
`amax / 127`. TensorRT ignores a cache of another version without a word and calibrates anew, so a
cache is only ever read for the version that it names.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from engines.errors import CalibrationError
from engines.ranges import QUANTISED_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "EntropyCalibration2"
"""The calibrator that DLA takes, and the only one whose caches are written."""

MIN_SCALE = 2.0**-24
"""Of a tensor that was always 0: TensorRT wants scales above 0. The smallest float16."""

FIRST_WIDE_MAJOR = 10
"""From this release on, a version's parts have two digits: 8.6.1 is 8601, 10.3.0 is 100300."""

_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})", re.DOTALL)
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(\.\d+)*")


def header(trt_version: str) -> str:
    """First line of a cache.

    Args:
        trt_version: as `tensorrt.__version__` says it: "8.6.1", "10.16.1.11".

    Raises:
        CalibrationError: it is no version.
    """
    found = _VERSION.fullmatch(trt_version)
    if found is None:
        raise CalibrationError(f"{trt_version!r} is no version of TensorRT; it is like 10.3.0")
    major, minor, patch = (int(part) for part in found.groups()[:3])
    wide = major >= FIRST_WIDE_MAJOR
    number = major * 10_000 + minor * 100 + patch if wide else major * 1000 + minor * 100 + patch
    return f"TRT-{number}-{ALGORITHM}"


def encode(amax: Mapping[str, float], trt_version: str) -> bytes:
    """Write a cache.

    Args:
        amax: largest absolute value by tensor name, as in `engines.ranges.Ranges`.
        trt_version: the TensorRT that will read it.

    Raises:
        CalibrationError: a name cannot be written in this form, or the version is none.
    """
    lines = [header(trt_version)]
    for name, value in amax.items():
        if not name or "\n" in name or "\r" in name:
            raise CalibrationError(f"tensor {name!r} cannot be named in a calibration cache")
        scale = struct.pack(">f", max(value / QUANTISED_MAX, MIN_SCALE))
        lines.append(f"{name}: {scale.hex()}")
    return ("\n".join(lines) + "\n").encode()


def decode(cache: bytes, trt_version: str) -> dict[str, float]:
    """Read a cache.

    Args:
        cache: what `encode` or TensorRT wrote.
        trt_version: the TensorRT that is to use it.

    Returns:
        Largest absolute value by tensor name.

    Raises:
        CalibrationError: it is of another version or calibrator, or is no cache.
    """
    try:
        first, *lines = cache.decode().splitlines()
    except (UnicodeDecodeError, ValueError) as error:
        raise CalibrationError(
            "the calibration cache is empty or no text; calibrate anew"
        ) from error
    if first != header(trt_version):
        raise CalibrationError(
            f"the calibration cache says {first[:60]!r}, and this TensorRT wants "
            f"{header(trt_version)!r}; calibrate anew"
        )
    amax: dict[str, float] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            raise CalibrationError(
                f"the calibration cache has the line {line[:60]!r}; calibrate anew"
            )
        (scale,) = struct.unpack(">f", bytes.fromhex(found[2]))
        amax[found[1]] = scale * QUANTISED_MAX
    return amax
