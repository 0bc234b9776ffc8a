"""What a candidate is to a model slot: the slot's settings with the bundle's model and files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from agent.bundle.manifest import FOLDERS
from agent.config import ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.manifest import Role
    from agent.plans import PlanRequest
    from agent.update.ports import Candidate


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
    pictures = _folder(candidate, "calibration")
    if pictures is not None:
        own = {"calibration": pictures, "truth": None}
        given["quantize"] = base.config.quantize.model_copy(update=own)
    return replace(base, config=ModelConfig.model_validate({**_plain(base.config), **given}))


def truth_of(candidate: Candidate) -> Path | None:
    """What is in the pictures of the golden set, if the bundle says it."""
    return _file(candidate, "truth")


def golden_of(candidate: Candidate) -> Path | None:
    """The folder of the golden set, if there is one."""
    return _folder(candidate, "golden")


def _file(candidate: Candidate, role: Role) -> Path | None:
    places = [file.place for file in candidate.manifest.files if file.role == role]
    return candidate.files / places[0] if places else None


def _folder(candidate: Candidate, role: Literal["calibration", "golden"]) -> Path | None:
    there = any(file.role == role for file in candidate.manifest.files)
    return candidate.files / FOLDERS[role] if there else None


def _plain(config: ModelConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in type(config).model_fields}
