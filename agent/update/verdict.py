"""Whether what was measured of a candidate is good enough, by the rules that go with it. Pure.

Every reason says the figure and the limit. Figures that a rule needs and that are not there fail
the candidate if the bundle should have brought what they are told from; otherwise the stage could
not be carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.errors import GateError
from agent.update.ports import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.bundle.manifest import GateRules, ShadowRules

MIN_OBJECTS = 10
"""With fewer objects in all frames, shares of them say nothing."""

PICTURES = {
    "map50_95": "a golden set and its ground truth",
    "top1": "a golden set",
    "agreement": "a golden set, or live frames,",
}
"""What a metric is told from."""


def judge_gate(measured: Mapping[str, Any], rules: GateRules) -> Finding:
    """Judge what `agent.update.trialgate.measure` has measured.

    Raises:
        GateError: the rules compare with the active model, and that cannot be run.
    """
    active_error = str(measured["active_error"])
    compares = rules.max_drop_vs_active is not None or rules.max_latency_ratio is not None
    if active_error and (compares or (rules.metric == "agreement" and rules.min_score is not None)):
        raise GateError(
            f"the candidate cannot be compared with the active model, which fails: {active_error}"
        )
    reasons = [*_failures(measured, "pictures"), *_score(measured, rules), *_cost(measured, rules)]
    return Finding(not reasons, "; ".join(reasons), _told(measured))


def judge_shadow(measured: Mapping[str, Any], rules: ShadowRules) -> Finding:
    """Judge what `agent.update.shadow.shadow` has measured.

    Frames that never came, or showed next to nothing, say nothing against a candidate.
    """
    reasons = list(_failures(measured, "live frames"))
    share, objects = measured["share"], _objects(measured)
    if rules.min_agreement is not None and objects >= MIN_OBJECTS and share < rules.min_agreement:
        reasons.append(
            f"it agrees with the active model on {share:.1%} of {objects} objects in "
            f"{measured['frames']} live frames; at least {rules.min_agreement:.1%} is asked"
        )
    told = _told(measured)
    if objects < MIN_OBJECTS:
        told["note"] = f"{objects} objects in {measured['frames']} frames: too few to judge by"
    return Finding(not reasons, "; ".join(reasons), told)


def _failures(measured: Mapping[str, Any], what: str) -> Iterator[str]:
    count = int(measured["failures"])
    if count:
        yield f"it fails on {count} of the {what}: {measured['failure']}"


def _score(measured: Mapping[str, Any], rules: GateRules) -> Iterator[str]:
    score, active = measured["score"], measured["active_score"]
    if rules.metric == "agreement" and not measured["pictures"]:
        # Without a golden set, what the cameras show is what there is.
        live = measured["live"]
        score, active = (live["share"], 1.0) if live["frames"] else (None, None)
    if rules.min_score is None and rules.max_drop_vs_active is None:
        return
    if measured["failures"]:
        return  # Told already; there is no score of the pictures that it could answer.
    if score is None:
        yield f"its {rules.metric} is asked for, which needs {PICTURES[rules.metric]} to be told"
        return
    if rules.min_score is not None and score < rules.min_score:
        yield f"its {rules.metric} is {score:.4f}; at least {rules.min_score:g} is asked"
    drop = rules.max_drop_vs_active
    if drop is not None and active is not None and active - score > drop:
        yield (
            f"its {rules.metric} is {score:.4f}, {active - score:.4f} below the active model's "
            f"{active:.4f}; at most {drop:g} is allowed"
        )


def _cost(measured: Mapping[str, Any], rules: GateRules) -> Iterator[str]:
    p95, ratio, memory_mb = (
        float(measured["latency_ms"]["p95"]),
        measured["latency_ratio"],
        float(measured["memory_mb"]),
    )
    if rules.latency_p95_ms is not None and p95 > rules.latency_p95_ms:
        yield (
            f"it takes {p95:.1f} ms for a picture (p95); at most {rules.latency_p95_ms:g} ms is "
            "allowed"
        )
    if (
        rules.max_latency_ratio is not None
        and ratio is not None
        and ratio > rules.max_latency_ratio
    ):
        yield (
            f"it takes {ratio:.2f} times as long as the active model; at most "
            f"{rules.max_latency_ratio:g} is allowed"
        )
    if rules.memory_mb is not None and memory_mb > rules.memory_mb:
        yield f"it takes {memory_mb:.0f} MB of memory; at most {rules.memory_mb} MB is allowed"


def _objects(measured: Mapping[str, Any]) -> int:
    return int(measured["active_objects"]) + int(measured["candidate_objects"])


def _told(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The figures without what says nothing."""
    return {key: value for key, value in measured.items() if value not in (None, "")}
