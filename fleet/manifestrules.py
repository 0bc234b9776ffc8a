"""The parts of a manifest that a releaser decides: for whom a bundle is, and what it must prove."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.bundle.manifest import (
    Build,
    CanaryRules,
    Compat,
    GateRules,
    Provenance,
    ShadowRules,
)
from agent.bundle.seal import Facts
from agent.bundle.strict import Counter, Document, decode
from agent.errors import ManifestError
from engines.durable import read_bounded
from fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAY_S = 86_400
MAX_RULES_BYTES = 64 * 2**10


class ManifestRules(Document):
    """As in the manifest; what is absent has the manifest's own defaults."""

    min_release_counter: Counter = 0
    compat: Compat = Compat()
    build: Build = Build()
    gate: GateRules = GateRules()
    shadow: ShadowRules = ShadowRules()
    canary: CanaryRules = CanaryRules()
    provenance: Provenance = Provenance()


def read_rules(path: Path | None, options: Mapping[str, Any]) -> ManifestRules:
    """Rules of a file, with options put over them.

    Args:
        path: JSON; None: none.
        options: values by "section.field"; those that are None were not given.

    Raises:
        FleetError: the file cannot be read, or a value is not possible.
    """
    try:
        value = json.loads(_read(path)) if path else {}
        for name, given in options.items():
            if given is not None:
                section, field = name.split(".")
                value.setdefault(section, {})[field] = given
        return decode(ManifestRules, json.dumps(value).encode(), "rules", MAX_RULES_BYTES)
    except (ManifestError, ValueError, AttributeError, TypeError) as error:
        raise FleetError(f"{path or 'options'}: {error}") from None


def facts(rules: ManifestRules, family: str, version: str, now: float, expires_days: int) -> Facts:
    """What a bundle is packed with; its release counter is still to be given.

    Args:
        rules: what is decided.
        family: of the model.
        version: of the model.
        now: seconds since the epoch.
        expires_days: after which no device begins with it.
    """
    created = int(now)
    return Facts(
        family=family,
        version=version,
        release_counter=0,
        created=created,
        expires=created + expires_days * DAY_S,
        min_release_counter=rules.min_release_counter,
        compat=rules.compat,
        build=rules.build,
        gate=rules.gate,
        shadow=rules.shadow,
        canary=rules.canary,
        provenance=rules.provenance,
    )


def _read(path: Path) -> bytes:
    try:
        data = read_bounded(path, MAX_RULES_BYTES)
    except OSError as error:
        raise FleetError(f"{path} cannot be read: {error.strerror or error}") from error
    if data is None:
        raise FleetError(f"{path} is larger than {MAX_RULES_BYTES} bytes")
    return data
