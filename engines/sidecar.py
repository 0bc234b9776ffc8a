"""The JSON file beside a sealed plan: what it is, how it was made, and the digest of its bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.canonical import canonical
from engines.errors import PlanError

SCHEMA = "vigia.plan/1"

MAX_BYTES = 1 << 20
"""Longest sidecar that is written or read."""


@dataclass(frozen=True, slots=True, eq=False)
class Sidecar:
    """What stands beside a plan.

    Attributes:
        key_hex: the plan's key.
        key: the parts that the key was made of.
        created_s: wall clock at writing, seconds since 1970; may be wrong.
        facts: whatever was given with the plan: route, precision, timings, the gate's report.
        sha256: hex digest of the sealed plan.
        sealed_bytes: size of the sealed plan.
    """

    key_hex: str
    key: Mapping[str, Any]
    created_s: float
    facts: Mapping[str, Any]
    sha256: str = ""
    sealed_bytes: int = 0

    @property
    def binding(self) -> bytes:
        """What the plan is sealed with: an altered sidecar does not open its plan any more."""
        told: dict[str, Any] = {
            "schema": SCHEMA,
            "hex": self.key_hex,
            "key": self.key,
            "created_s": self.created_s,
            "facts": self.facts,
        }
        return hashlib.sha256(canonical(told).encode("ascii")).digest()

    def encode(self) -> bytes:
        """As a file.

        Raises:
            PlanError: it is longer than `MAX_BYTES`.
        """
        document = {
            "schema": SCHEMA,
            "hex": self.key_hex,
            "created_s": self.created_s,
            "sealed": {"sha256": self.sha256, "bytes": self.sealed_bytes},
            "facts": self.facts,
            "key": self.key,
        }
        content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii")
        if len(content) > MAX_BYTES:
            raise PlanError(
                f"its description has {len(content)} bytes; at most {MAX_BYTES} are kept"
            )
        return content


def decode(content: bytes) -> Sidecar:
    """Read a sidecar file.

    Raises:
        PlanError: it is not one.
    """
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_refuse)
        if document["schema"] != SCHEMA:
            raise PlanError(f"its description is of another form, not {SCHEMA}")
        sealed = document["sealed"]
        sidecar = Sidecar(
            key_hex=_typed(document["hex"], str),
            key=_typed(document["key"], dict),
            created_s=_typed(document["created_s"], float),
            facts=_typed(document["facts"], dict),
            sha256=_typed(sealed["sha256"], str),
            sealed_bytes=_typed(sealed["bytes"], int),
        )
        # A byte that differs is damage, even where it says the same.
        if sidecar.encode() != content:
            raise ValueError  # noqa: TRY301 - handled like every other damage
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanError("its description is damaged") from error
    return sidecar


def plain(value: object) -> Any:
    """A copy of JSON-like facts; NaN and infinity, which JSON cannot say, become None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(kind)
    return value


def _refuse(text: str) -> None:
    raise ValueError(text)
