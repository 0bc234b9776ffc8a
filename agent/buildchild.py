"""Builds one engine in a process of its own: `python -m agent.buildchild`.

What leaks, crashes or runs out of memory in a library's builder takes this process with it and not
the agent. The result lies in the plan cache.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agent.building import build
from agent.childside import serve
from agent.plans import PlanRequest, Plans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engines.backend import Progress


def act(
    request: dict[str, Any], tell: Callable[[Progress], None]
) -> tuple[str, Mapping[str, object]]:
    """Build what a `agent.plans.PlanRequest` asks for."""
    report = build(Plans(PlanRequest.from_json(request)), tell)
    return report.plan, report.value


if __name__ == "__main__":
    sys.exit(serve(act))
