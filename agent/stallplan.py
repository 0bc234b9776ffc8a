"""What is done about stages that make no progress: told, begun anew, then the process ends. Pure.

The steps grow: only the stage, as long as that has not been needed too often; the process, which
its service manager starts again; and where even that does not end, the manager's watchdog, which
hears nothing while anything essential stalls. What is not essential is told once and left at that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.progress import Stage

MAX_RENEWALS = 2
RENEWALS_WITHIN_S = 600.0
"""A stage that hung leaves a thread and an engine behind: after so many within this time the
process ends instead."""

Action = Literal["tell", "renew", "over", "exit"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do about a stage, in the order given."""

    action: Action
    stage: Stage


class StallPlan:
    """Decides at each look.

    Args:
        exit_after_s: a stall that lasts so long after it was told ends the process.

    Attributes:
        exit_after_s: the same; it may be changed.
    """

    def __init__(self, exit_after_s: float) -> None:
        self.exit_after_s = exit_after_s
        self._told: dict[str, float] = {}
        self._holding: tuple[str, ...] = ()
        self._renewals: dict[str, deque[float]] = {}
        self._exits = False

    @property
    def stalled(self) -> tuple[str, ...]:
        """Names of the stages that make no progress."""
        return tuple(self._told)

    @property
    def holding(self) -> tuple[str, ...]:
        """Those of them for which the service manager's watchdog is not fed."""
        return self._holding

    def look(self, stages: Iterable[Stage], now: float) -> list[Step]:
        """What is to be done now.

        Args:
            stages: all of them; one that is missing has ended.
            now: monotonic seconds.
        """
        seen = {stage.name: stage for stage in stages}
        for name in set(self._told) - set(seen):
            del self._told[name]
        steps: list[Step] = []
        for name, stage in seen.items():
            stalls = stage.age_s is not None and stage.age_s > stage.limit_s
            if stalls and name not in self._told:
                self._told[name] = now
                steps.append(Step("tell", stage))
                if stage.renew is not None and self._may_renew(name, now):
                    steps.append(Step("renew", stage))
            elif stalls and now - self._told[name] >= self.exit_after_s:
                if stage.essential and not self._exits:
                    self._exits = True
                    steps.append(Step("exit", stage))
            elif not stalls and self._told.pop(name, None) is not None:
                steps.append(Step("over", stage))
        self._holding = tuple(name for name in self._told if seen[name].essential)
        return steps

    def _may_renew(self, name: str, now: float) -> bool:
        past = self._renewals.setdefault(name, deque(maxlen=MAX_RENEWALS))
        while past and now - past[0] > RENEWALS_WITHIN_S:
            past.popleft()
        if len(past) == MAX_RENEWALS:
            return False
        past.append(now)
        return True
