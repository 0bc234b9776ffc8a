"""Whether an assignment may be begun: the checks in their order. Pure.

1. It is signed by the director: `agent.bundle.dsse.verify`, before anything here.
2. It is for this device, and for a slot that there is.
3. Its counter is above every earlier one: what was seen once is not obeyed twice.
4. It is within its time, judged once, by a clock that never falls below the time floor.
5. As many operators have approved this bundle for this campaign as the release keys demand.
6. The signed metadata knows the target, with the same digest and release counter.

What the bundle itself says of this device is `agent.update.preflight`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent.bundle.documents import APPROVAL, Approval
from agent.bundle.dsse import verify
from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules
from agent.errors import BundleError, ExpiredError, RollbackError, SignatureError
from agent.update.ports import Rules

if TYPE_CHECKING:
    from collections.abc import Collection

    from securesystemslib.signer import Key

    from agent.bundle.documents import Assignment
    from agent.bundle.manifest import Manifest
    from agent.bundle.trust import TargetInfo

_Number = TypeVar("_Number", int, float)


def check_offer(
    assignment: Assignment, *, device: str, slots: Collection[str], last_counter: int, now: float
) -> None:
    """Checks 2 to 4.

    Raises:
        SignatureError: it is another device's, or of a slot that is not here.
        RollbackError: it was overtaken.
        ExpiredError: its time is over.
    """
    if assignment.device != device:
        raise SignatureError(f"the assignment is for {assignment.device}, this is {device}")
    if assignment.slot not in slots:
        there = ", ".join(sorted(slots))
        raise SignatureError(f"the assignment is for the slot {assignment.slot}; there are {there}")
    if assignment.counter <= last_counter:
        raise RollbackError(
            f"assignment {assignment.counter} comes after {last_counter}: it was overtaken"
        )
    if now > assignment.deadline:
        raise ExpiredError(
            f"assignment {assignment.counter} ended {now - assignment.deadline:.0f} s ago"
        )


def check_approvals(assignment: Assignment, keys: Collection[Key], needed: int) -> None:
    """Check 5: so many operators have approved this bundle for this campaign.

    Args:
        assignment: carries the approvals.
        keys: of the operators; each counts once, however often it signed.
        needed: how many.

    Raises:
        SignatureError: there are too few.
    """
    agreed = sum(
        any(_approves(envelope.encode(), key, assignment) for envelope in assignment.approvals)
        for key in (keys if needed else ())
    )
    if agreed < needed:
        raise SignatureError(
            f"{agreed} operators have approved campaign {assignment.campaign}, {needed} are needed"
        )


def _approves(envelope: bytes, key: Key, assignment: Assignment) -> bool:
    try:
        approval = verify(envelope, APPROVAL, Approval, [key])
    except BundleError:
        return False
    return (approval.campaign, approval.sha256) == (assignment.campaign, assignment.sha256)


def check_target(assignment: Assignment, target: TargetInfo) -> None:
    """Check 6.

    Raises:
        SignatureError: the release keys signed something else.
    """
    if assignment.sha256 != target.sha256:
        raise SignatureError(f"{assignment.target}: the release keys signed another manifest")
    if assignment.release_counter != target.release_counter:
        raise SignatureError(
            f"{assignment.target}: release {assignment.release_counter} is assigned, "
            f"{target.release_counter} is signed"
        )


def rules(manifest: Manifest, assignment: Assignment | None) -> Rules:
    """The manifest's rules, where the assignment's are not stricter."""
    if assignment is None:
        return Rules(manifest.gate, manifest.shadow, manifest.canary)
    return Rules(
        gate=_gate(manifest.gate, assignment.gate or GateRules(metric=manifest.gate.metric)),
        shadow=_shadow(manifest.shadow, assignment.shadow),
        canary=_canary(manifest.canary, assignment.canary),
    )


def _gate(signed: GateRules, asked: GateRules) -> GateRules:
    same = signed.metric == asked.metric
    return GateRules(
        metric=signed.metric,
        # Figures of another metric cannot be compared with these.
        min_score=_most(signed.min_score, asked.min_score if same else None),
        max_drop_vs_active=_least(
            signed.max_drop_vs_active, asked.max_drop_vs_active if same else None
        ),
        latency_p95_ms=_least(signed.latency_p95_ms, asked.latency_p95_ms),
        max_latency_ratio=_least(signed.max_latency_ratio, asked.max_latency_ratio),
        memory_mb=_least(signed.memory_mb, asked.memory_mb),
    )


def _shadow(signed: ShadowRules, asked: ShadowRules | None) -> ShadowRules:
    if asked is None:
        return signed
    return ShadowRules(
        seconds=max(signed.seconds, asked.seconds),
        min_agreement=_most(signed.min_agreement, asked.min_agreement),
    )


def _canary(signed: CanaryRules, asked: CanaryRules | None) -> CanaryRules:
    if asked is None:
        return signed
    return CanaryRules(
        seconds=max(signed.seconds, asked.seconds),
        min_fps_ratio=max(signed.min_fps_ratio, asked.min_fps_ratio),
        max_latency_ratio=min(signed.max_latency_ratio, asked.max_latency_ratio),
        max_error_rate=min(signed.max_error_rate, asked.max_error_rate),
        max_detection_drift=_least(signed.max_detection_drift, asked.max_detection_drift),
        max_memory_growth_mb=_least(signed.max_memory_growth_mb, asked.max_memory_growth_mb),
    )


def _least(a: _Number | None, b: _Number | None) -> _Number | None:
    return min((x for x in (a, b) if x is not None), default=None)


def _most(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)
