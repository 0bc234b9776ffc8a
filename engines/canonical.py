"""One text for one JSON value, so that digests of equal values are equal and of others differ."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, Union

JSON: TypeAlias = Union[bool, int, float, str, "Sequence[JSON]", "Mapping[str, JSON]", None]
"""What JSON can say. A tuple is written as a list."""


def canonical(value: JSON) -> str:
    """Write a value: keys sorted, no spaces, ASCII, floats by their shortest exact form.

    Values of different types are different texts: `1`, `1.0`, `true` and `"1"`.

    Raises:
        TypeError: something that JSON has no one form for: another type, a subclass such as an
            enumeration, NaN or infinity. The message names the place.
    """
    return json.dumps(_checked(value, ""), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checked(value: object, place: str) -> object:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_checked(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"key {key!r} of {place or 'the value'} is no text")
        return {key: _checked(item, f"{place}.{key}") for key, item in value.items()}
    raise TypeError(f"{place or 'the value'} = {value!r} ({type(value).__name__}) is not JSON")
