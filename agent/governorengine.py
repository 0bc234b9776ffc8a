"""Lighter engines of the slots' own models, for when slower cameras are not enough.

Nothing is built here: a build is work, and it is too hot for that. What serves lightly was built
before (`vigia engine build`) and has passed its gate; the slot keeps its own model, so that a
start, a failure or an update brings it back.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import AgentError
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.builder import Builder
    from agent.modelslot import ModelSlot
    from agent.plans import PlanRequest
    from agent.slotports import Engines, Pipelines

log = logging.getLogger(__name__)

LIGHTNESS = ("fp32", "bf16", "fp16", "int8")
"""Precisions from the heaviest to the lightest."""


class LightEngines:
    """Puts lighter engines in the place of those that serve, and back.

    Args:
        slots: by name.
        pipelines: where engines take over.
        builder: what must not work on a slot meanwhile.
        engines: opens the engines of a request.
    """

    def __init__(
        self,
        slots: Mapping[str, ModelSlot],
        pipelines: Pipelines,
        builder: Builder,
        engines: Callable[[PlanRequest], Engines],
    ) -> None:
        self._slots = slots
        self._pipelines = pipelines
        self._builder = builder
        self._engines = engines
        self._light: dict[str, PlanRequest] = {}

    @property
    def serving(self) -> tuple[str, ...]:
        """Slots in which a lighter engine was put."""
        return tuple(sorted(self._light))

    def engage(self) -> tuple[str, ...]:
        """Have lighter engines take over where there are any.

        Returns:
            The slots in which one serves now.
        """
        for name, slot in self._slots.items():
            # On trial is what an update proves; it decides who serves until it has.
            if name not in self._light and not slot.on_trial:
                try:
                    self._lighten(name, slot)
                except (EngineError, AgentError) as error:
                    log.warning("model %s: no lighter engine: %s", name, error)
        return self.serving

    def release(self) -> None:
        """Have the slots' own engines take over again."""
        for name in list(self._light):
            light = self._light.pop(name)
            slot = self._slots.get(name)
            # What an update is proving, or has put there since, stays.
            if slot is None or slot.trial != light:
                continue
            try:
                with self._builder.held():
                    slot.restore(slot.request, self._pipelines)
            except (EngineError, AgentError) as error:
                log.warning("model %s: its own engine does not take over: %s", name, error)

    def _lighten(self, name: str, slot: ModelSlot) -> None:
        model = self._pipelines.model(name)
        if model is None or model.ref.precision not in LIGHTNESS:
            return
        heavier = LIGHTNESS.index(model.ref.precision)
        for precision in reversed(LIGHTNESS[heavier + 1 :]):
            config = slot.request.config.model_copy(update={"precision": precision})
            light = replace(slot.request, config=config)
            if self._engines(light).find() is None:
                continue
            with self._builder.held():
                if slot.on_trial:
                    return
                slot.try_out(light, self._pipelines)
            self._light[name] = light
            return
