"""What the update life cycle asks of the rest of the agent, and what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.bundle.manifest import CanaryRules, GateRules, Manifest, ShadowRules
    from engines.backend import Progress


@dataclass(frozen=True, slots=True)
class Rules:
    """What a candidate must prove: the manifest's rules, made stricter by the assignment's."""

    gate: GateRules
    shadow: ShadowRules
    canary: CanaryRules


@dataclass(frozen=True, slots=True)
class Candidate:
    """An opened bundle that is to take over a slot.

    Attributes:
        slot: which model slot.
        digest: SHA-256 of the manifest, hexadecimal.
        manifest: as signed.
        files: where the plaintext files lie, in memory only: `files / name`.
        rules: what it must prove.
    """

    slot: str
    digest: str
    manifest: Manifest
    files: Path
    rules: Rules


@dataclass(frozen=True, slots=True)
class Finding:
    """What a stage of proof found.

    Attributes:
        passed: whether the candidate may go on.
        reason: why not, with figure and limit, for people; empty if it passed.
        figures: JSON values.
    """

    passed: bool
    reason: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """The figures as JSON."""
        return json.dumps(self.figures, separators=(",", ":"), sort_keys=True)


class Proofs(Protocol):
    """Builds, judges and switches. Each call blocks until it is done, or `cancel` was called.

    All raise `agent.errors.GateError` where a stage could not be carried out at all, and
    `UpdateCancelled` where `cancel` was called meanwhile.
    """

    def build(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """Build its engine into the plan cache, in a process of its own."""

    def gate(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """Judge it on the golden set beside the active model, in a process of its own."""

    def shadow(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """Run it beside the active model on live frames."""

    def canary(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """Have it serve on trial: switch, watch its health; does not switch back."""

    def commit(self, candidate: Candidate) -> None:
        """It is the slot's own model from now on; idempotent."""

    def revert(self, slot: str, previous: Candidate | None) -> None:
        """Have `previous` (None: the configured model) serve; idempotent."""

    def cancel(self) -> None:
        """End what runs, soon; from any thread."""


class UpdateCancelled(Exception):  # noqa: N818 - not an error: the agent is being stopped
    """The agent stops; the life cycle goes on at the next start."""
