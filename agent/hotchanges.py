"""The running agent, as a reload of the configuration changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.builder import Builder
    from agent.config import CameraConfig, Config, ModelConfig
    from agent.modelslot import ModelSlot
    from agent.pipeline.pipeline import CameraPlan, Pipeline


class HotChanges:
    """Implements `agent.reload.Site`.

    Args:
        pipeline: where cameras run.
        slots: by name.
        builder: builds engines in the background.
        camera: makes a camera's place in the pipeline.
        removed: called when a camera has ended for good.
        sections: what takes new settings of a section that changes as a whole, by its name.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        slots: Mapping[str, ModelSlot],
        builder: Builder,
        camera: Callable[[str, CameraConfig], CameraPlan],
        removed: Callable[[str], None],
        sections: Mapping[str, Callable[[Config], None]],
    ) -> None:
        self._pipeline = pipeline
        self._slots = slots
        self._builder = builder
        self._camera = camera
        self._removed = removed
        self._sections = sections

    def add_camera(self, name: str, camera: CameraConfig) -> None:
        """See `agent.reload.Site`."""
        try:
            self._pipeline.add(name, self._camera(name, camera))
        except Exception:
            # Whatever went wrong, it does not run; what, is told by whoever asked for it.
            self._removed(name)
            raise

    def remove_camera(self, name: str) -> None:
        """See `agent.reload.Site`."""
        self._pipeline.remove(name)
        self._removed(name)

    def change_section(self, name: str, config: Config) -> None:
        """See `agent.reload.Site`."""
        self._sections[name](config)

    def change_model(self, slot: str, model: ModelConfig) -> None:
        """See `agent.reload.Site`.

        Raises:
            ConfigError: settings that do not fit the model, or an update serves the slot.
            EngineError: it cannot be loaded.
        """
        place = self._slots[slot]
        before = place.configured
        if place.request != before or place.on_trial:
            raise ConfigError(
                "an update serves it; its settings come with the next update or a restart"
            )
        request = replace(before, config=model)
        if slot not in self._pipeline.runners:
            place.assign(request)
            place.configured = request
            return
        with self._builder.held():
            try:
                place.restore(request, self._pipeline)
            except Exception:
                # What served serves on, and is loaded again if it fails.
                place.assign(before)
                raise
            place.configured = request
        self._builder.again(slot)
