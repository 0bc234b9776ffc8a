"""Strict JSON documents: bytes from outside become a checked object, or one error."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ManifestError

MAX_U64 = 2**64 - 1
MAX_WALL_S = 253_402_300_799
"""The last second of the year 9999."""

MAX_SHOWN = 200
"""Characters of a field's path in a message."""

MAX_DEPTH = 32
"""Nested lists and objects of any document of ours stay far below."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be printable text")
    return value


FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""No separators, no leading dot: a name can never leave its folder. (`$` of pydantic's regular
expressions is the very end, also before a newline.)"""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""As `agent.configbase.NAME_PATTERN`: devices, slots."""

Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Counter = Annotated[int, Field(ge=0, le=MAX_U64)]
WallTime = Annotated[int, Field(ge=0, le=MAX_WALL_S)]
"""Whole seconds since the epoch."""

Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Document(BaseModel):
    """Base of all documents: no unknown keys, no conversions, no NaN, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def encode(self) -> bytes:
        """The document as JSON; absent optional fields are left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


DocumentT = TypeVar("DocumentT", bound=Document)


def decode(kind: type[DocumentT], data: bytes, what: str, max_bytes: int) -> DocumentT:
    """Read a document.

    Args:
        kind: which.
        data: JSON.
        what: how messages call it, e.g. "manifest".
        max_bytes: larger ones are refused before anything is read.

    Raises:
        ManifestError: the bytes are not one; names the first field at fault, never a secret.
    """
    loads(data, what, max_bytes)
    try:
        # By way of JSON, so that strict mode takes lists for tuples, as JSON has no others.
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise ManifestError(f"{what}: {first_fault(error)}") from None


def loads(data: bytes, what: str, max_bytes: int) -> Any:
    """Read JSON that nobody vouches for yet.

    Args:
        data: JSON.
        what: how messages call it.
        max_bytes: larger ones are refused before anything is read.

    Raises:
        ManifestError: it is too large, not JSON, too deep, or a key stands twice in an object.
    """
    if len(data) > max_bytes:
        raise ManifestError(f"{what}: {len(data)} bytes are more than the {max_bytes} allowed")
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{what}: not JSON: {error}") from None
    _check_depth(value, what)
    return value


def first_fault(error: ValidationError) -> str:
    """The first field at fault and what is wrong with it, without its value.

    A key that should not be there is named, so the text may come from outside.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    shown = where if where.isprintable() else ascii(where)
    return f"{shown[:MAX_SHOWN]}: {first['msg']}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _check_depth(value: object, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for part in level
            if isinstance(part, (dict, list))
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise ManifestError(f"{what}: nested deeper than {MAX_DEPTH} levels")
