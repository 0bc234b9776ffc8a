"""Which parts of the agent are watched, when each counts as stalled, and what its stall costs.

The one table: `docs/how-to/stalls.md` says the same in words, and a test holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.progress import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.confighealth import HealthConfig

Limit = Literal["stall_timeout_s", "slow_timeout_s", "cameras_timeout_s", "load_timeout_s"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one kind of stage.

    Attributes:
        limit: the setting of `health` that says when it is stalled.
        essential: without it nothing is seen or told: its stall ends the process. The stall of any
            other is told once, and what serves goes on.
        renewable: it can be begun anew within the process; that is tried first.
    """

    limit: Limit
    essential: bool
    renewable: bool = False


RULES: dict[str, Rule] = {
    # Work of fractions of a second.
    "model": Rule("stall_timeout_s", essential=True, renewable=True),
    "publisher": Rule("stall_timeout_s", essential=True),
    "event loop": Rule("stall_timeout_s", essential=True),
    # A step that waits for a network or a disk: for name servers, an answer, a worn flash.
    "link": Rule("slow_timeout_s", essential=True),
    "spool": Rule("slow_timeout_s", essential=True),
    "updater": Rule("slow_timeout_s", essential=True),
    # While every live camera has as many hanging reads as are allowed, none can be opened anew.
    "cameras": Rule("cameras_timeout_s", essential=True),
    "loading": Rule("load_timeout_s", essential=True),
    "restoring updates": Rule("load_timeout_s", essential=True),
    # A build is a process with a deadline of its own; this counts what the agent does around it.
    "builder": Rule("load_timeout_s", essential=False),
    "settings": Rule("load_timeout_s", essential=False),
    "governor": Rule("slow_timeout_s", essential=False, renewable=True),
    "http": Rule("slow_timeout_s", essential=False, renewable=True),
    "http pictures": Rule("slow_timeout_s", essential=False),
}
"""By kind; a stage is called as its kind, and by its model where there is one of each."""


def stage(
    settings: HealthConfig,
    kind: str,
    age_s: float | None,
    *,
    of: str = "",
    renew: Callable[[], bool] | None = None,
) -> Stage:
    """A stage as its rule says.

    Args:
        settings: limits.
        kind: of `RULES`.
        age_s: seconds that what it does has taken; None while it rests.
        of: which one, where there are several.
        renew: begins it anew; only for kinds that are renewable.
    """
    rule = RULES[kind]
    assert (renew is not None) == rule.renewable
    limit_s: float = getattr(settings, rule.limit)
    name = f"{kind} {of}" if of else kind
    return Stage(name, age_s, limit_s, renew, essential=rule.essential)
