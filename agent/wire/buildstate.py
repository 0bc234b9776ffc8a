"""How the building of a slot's engine goes, as the model state message says it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["none", "building", "ready", "failed"]

WALL_DIGITS = 3
"""Decimals of seconds since the epoch."""

MAX_REASON = 1000
"""Characters of a reason; a library's error can be a page."""


@dataclass(frozen=True, slots=True)
class BuildState:
    """What is told of a build.

    Attributes:
        state: "none": nothing else could be built for this slot, or it is not known yet.
            "building": an engine is being built, or is about to take over. "ready": the built
            engine serves. "failed": it does not; what served before serves on.
        step: what is being done, for people; empty if nothing is.
        done: units of the step that are finished.
        total: its units in all; 0 where that is not known.
        candidate: backend and precision of the engine that is about to take over, or None.
        reason: why it failed, or what must be known of how it went; empty if nothing.
        started: when it began, seconds since the epoch; None if it was found in the cache.
        ended: when it ended, likewise.
        report: how the engine was chosen, see `agent.buildsummary`; None if it was not.
    """

    state: State = "none"
    step: str = ""
    done: int = 0
    total: int = 0
    candidate: tuple[str, str] | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    report: Mapping[str, object] | None = None

    def as_dict(self) -> dict[str, object]:
        """The message's `build`; fields that do not apply are absent."""
        fields: dict[str, object] = {"state": self.state}
        if self.step:
            fields["step"] = self.step
        if self.total:
            fields |= {"done": self.done, "total": self.total}
        if self.candidate is not None:
            backend, precision = self.candidate
            fields["candidate"] = {"backend": backend, "precision": precision}
        if self.reason:
            fields["reason"] = shortened(self.reason)
        if self.started is not None:
            fields["started"] = round(self.started, WALL_DIGITS)
        if self.ended is not None:
            fields["ended"] = round(self.ended, WALL_DIGITS)
        if self.report is not None:
            fields["report"] = dict(self.report)
        return fields


def shortened(text: str) -> str:
    """A text that fits into a message."""
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
