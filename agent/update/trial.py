"""What a candidate is to a model slot: the slot's settings with the bundle's model and files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.config import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.manifest import Role
    from agent.plans import PlanRequest
    from agent.update.ports import Candidate

CALIBRATION, GOLDEN = "calibration", "golden"
"""Folders below that of the bundle, as `agent.bundle.open` makes them."""


def request_of(base: PlanRequest, candidate: Candidate) -> PlanRequest:
    """The engine that a slot is to run when a candidate serves it.

    The signed bundle says what the model is: file, name, class names and, if it does, precision and
    least score. Everything else is how this site runs the slot, and stays as configured; so do the
    pictures for int8 where the bundle brings none.

    Args:
        base: the slot's request by the configuration.
        candidate: opened.
    """
    manifest, build = candidate.manifest, candidate.manifest.build
    given: dict[str, object] = {
        "path": _file(candidate, "model"),
        "name": base.config.name or f"{manifest.family}-{manifest.version}",
        "names": list(build.names) if build.names is not None else _file(candidate, "labels"),
    }
    if build.confidence is not None:
        given["confidence"] = build.confidence
    if build.precision != "auto":
        given["precision"] = build.precision
    if has(candidate, "calibration"):
        pictures = {"calibration": candidate.files / CALIBRATION, "truth": None}
        given["quantize"] = base.config.quantize.model_copy(update=pictures)
    return replace(base, config=ModelConfig.model_validate({**_plain(base.config), **given}))


def has(candidate: Candidate, role: Role) -> bool:
    """Whether the bundle brings files of a role."""
    return any(file.role == role for file in candidate.manifest.files)


def truth_of(candidate: Candidate) -> Path | None:
    """What is in the pictures of the golden set, if the bundle says it."""
    return _file(candidate, "truth")


def golden_of(candidate: Candidate) -> Path | None:
    """The folder of the golden set, if there is one."""
    return candidate.files / GOLDEN if has(candidate, "golden") else None


def _file(candidate: Candidate, role: Role) -> Path | None:
    names = [file.name for file in candidate.manifest.files if file.role == role]
    return candidate.files / names[0] if names else None


def _plain(config: ModelConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in type(config).model_fields}
