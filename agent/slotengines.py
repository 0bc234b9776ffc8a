"""The engines of a model slot, by the plan cache: what is ready, and what was built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.models import load_plan, load_ready, load_reference
from agent.plans import Plans
from engines.selection import REFERENCE

if TYPE_CHECKING:
    from agent.pipeline.worker import LoadedModel
    from agent.plans import PlanRequest
    from engines.plan import Plan


class PlannedEngines:
    """Implements `agent.slotports.Engines`.

    Args:
        request: which slot, with which settings.

    Raises:
        EngineError: the model file cannot be used.
        ConfigError: settings that do not fit it.
    """

    def __init__(self, request: PlanRequest) -> None:
        self._plans = Plans(request)

    @property
    def digest(self) -> str:
        """See `agent.slotports.Engines`."""
        return self._plans.info.digest

    @property
    def size(self) -> int:
        """See `agent.slotports.Engines`."""
        plan = self._plans.find()
        if plan is not None:
            return len(plan.blob)
        try:
            return self._plans.request.config.path.stat().st_size
        except OSError:
            return 0

    @property
    def reference(self) -> tuple[str, str]:
        """See `agent.slotports.Engines`."""
        return REFERENCE[0], self._plans.info.precision

    def load_ready(self) -> LoadedModel:
        """See `agent.slotports.Engines`."""
        return load_ready(self._plans)

    def load_reference(self) -> LoadedModel:
        """See `agent.slotports.Engines`."""
        return load_reference(self._plans)

    def wanted(self) -> bool:
        """See `agent.slotports.Engines`."""
        return self._plans.wanted()

    def find(self) -> Plan | None:
        """See `agent.slotports.Engines`."""
        return self._plans.find()

    def load(self, plan: Plan) -> LoadedModel:
        """See `agent.slotports.Engines`."""
        return load_plan(self._plans, plan)
