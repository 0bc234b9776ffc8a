"""Rules of one campaign that are stricter than its bundle's, e.g. for devices that matter most."""

from __future__ import annotations

from typing import Any

from agent.bundle.documents import Assignment
from agent.bundle.manifest import CanaryRules, GateRules, Manifest, ShadowRules
from agent.bundle.strict import Document
from agent.update.offer import rules
from fleet.errors import FleetError

SECTIONS = ("gate", "shadow", "canary")


class Stricter(Document):
    """As an assignment carries them; None: the bundle's own count alone."""

    gate: GateRules | None = None
    shadow: ShadowRules | None = None
    canary: CanaryRules | None = None


NOTHING_STRICTER = Stricter()


def completed(asked: Stricter, manifest: Manifest) -> Stricter:
    """What an operator asked for, with the bundle's own values for what they did not name.

    A field that stands in no file has a default, and devices would take it as asked for.

    Args:
        asked: as read from the operator's file.
        manifest: of the bundle.

    Raises:
        FleetError: something is not stricter than the bundle's own, and would not count.
    """
    given = {name: getattr(asked, name) for name in SECTIONS if getattr(asked, name) is not None}
    whole = {
        name: getattr(manifest, name).model_copy(
            update={field: getattr(section, field) for field in section.model_fields_set}
        )
        for name, section in given.items()
    }
    counts = rules(manifest, Assignment.model_construct(**{**dict.fromkeys(SECTIONS), **whole}))
    for name, section in given.items():
        for field in section.model_fields_set:
            _check(f"{name}.{field}", getattr(section, field), getattr(counts, name), field)
    return Stricter(**whole)


def _check(name: str, asked: object, counts: Any, field: str) -> None:
    own = getattr(counts, field)
    if own != asked:
        raise FleetError(
            f"--stricter: {name} {asked} would not count, since the bundle itself demands {own}; "
            "leave it out, or pack a bundle with other rules"
        )
