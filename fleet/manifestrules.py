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
from agent.bundle.strict import Counter, Document, DocumentT, decode
from agent.errors import ManifestError
from engines.durable import read_bounded
from fleet.errors import FleetError
from fleet.stricter import Stricter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAY_S = 86_400

MAX_DROP = 0.05
"""Of mAP50-95 or top-1 accuracy that a new model may lose, if nothing else is said."""

MAX_LATENCY_RATIO = 2.5
"""Times as long as the model that serves that a new one may take, if nothing else is said."""

MIN_AGREEMENT = 0.7
"""Share of objects on which they agree, if nothing else is said. A model whose accuracy is halved
comes to about 0.6, one that was trained anew on the same data to 0.9 and more."""

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
    return _decoded(ManifestRules, path, options)


def read_stricter(path: Path | None) -> Stricter:
    """Rules of one campaign from a file of the same form: gate, shadow and canary.

    Raises:
        FleetError: the file cannot be read, or a value is not possible.
    """
    return _decoded(Stricter, path, {})


def _decoded(kind: type[DocumentT], path: Path | None, options: Mapping[str, Any]) -> DocumentT:
    try:
        value = json.loads(_read(path)) if path else {}
        for name, given in options.items():
            if given is not None:
                section, field = name.split(".")
                value.setdefault(section, {})[field] = given
        return decode(kind, json.dumps(value).encode(), "rules", MAX_RULES_BYTES)
    except (ManifestError, ValueError, AttributeError, TypeError) as error:
        raise FleetError(f"{path or 'options'}: {error}") from None


def guarded(rules: ManifestRules, *, truth: bool) -> ManifestRules:
    """Rules that no bad model passes by being silent about it: what was not decided is filled in.

    Where the truth of the golden set is known, a model may lose little of what the one that serves
    reaches. Where it is not, the model that serves is the only measure, and a new one must answer
    much like it: for a model that is to answer differently, give other limits, or the truth.

    Args:
        rules: as decided.
        truth: whether the bundle says what is in the pictures of its golden set.
    """
    gate = rules.gate.model_fields_set
    metric = rules.gate.metric if "metric" in gate else "map50_95" if truth else "agreement"
    given: dict[str, object] = {"metric": metric, "max_latency_ratio": MAX_LATENCY_RATIO}
    if metric == "agreement":
        given["min_score"] = MIN_AGREEMENT
    else:
        given["max_drop_vs_active"] = MAX_DROP
    filled = {name: value for name, value in given.items() if name not in gate}
    shadow = rules.shadow
    if metric == "agreement" and "min_agreement" not in shadow.model_fields_set:
        shadow = shadow.model_copy(update={"min_agreement": MIN_AGREEMENT})
    return rules.model_copy(update={"gate": rules.gate.model_copy(update=filled), "shadow": shadow})


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
