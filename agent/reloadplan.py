"""What has to happen for another configuration to be in force. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.config import Config

if TYPE_CHECKING:
    from agent.config import CameraConfig

WHOLE = ("log", "governor", "health", "mqtt.detections")
"""Sections that change as a whole while the agent runs, by dotted key."""

HOT = ("cameras", "models", "log", "governor", "health")
"""Sections that change while the agent runs. A wrong broker address, identity or limit of memory
must not strand a device that runs, so that all others wait for a restart."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from one configuration to another.

    Attributes:
        config: what is in force afterwards: the new one where it can change now.
        removed: cameras to be ended; those that change come in `added` again.
        added: cameras to be started.
        disabled: cameras to be told as disabled: known, and not running.
        models: slots whose model is to be loaded anew and swapped in.
        sections: of `WHOLE`, that change.
        restart: dotted keys of what changes only with a restart.
    """

    config: Config
    removed: tuple[str, ...]
    added: tuple[str, ...]
    disabled: tuple[str, ...]
    models: tuple[str, ...]
    sections: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Nothing changes, now or with a restart."""
        return not (self.changes or self.restart)

    @property
    def changes(self) -> bool:
        """Something changes now."""
        return bool(self.removed or self.added or self.disabled or self.models or self.sections)


def plan(old: Config, new: Config) -> Plan:
    """The way from what is in force to what is wanted.

    Args:
        old: in force.
        new: wanted; valid.
    """
    detections = {"detections": new.mqtt.detections}
    whole = {
        **{name: getattr(new, name) for name in ("log", "governor", "health")},
        "mqtt": old.mqtt.model_copy(update=detections),
    }
    after_now = old.model_copy(update=whole)
    restart = [
        name
        for name in Config.model_fields
        if name not in HOT and getattr(after_now, name) != getattr(new, name)
    ]
    slots = set(old.models) | set(new.models)
    restart += [f"models.{s}" for s in sorted(slots) if (s in old.models) != (s in new.models)]
    cameras: dict[str, CameraConfig] = {}
    for name, camera in new.cameras.items():
        if camera.model in old.models:
            cameras[name] = camera
            continue
        # Its model is there after a restart; until then the camera is as it was.
        restart.append(f"cameras.{name}")
        if name in old.cameras:
            cameras[name] = old.cameras[name]
    kept = {slot: new.models.get(slot, model) for slot, model in old.models.items()}
    config = after_now.model_copy(update={"cameras": cameras, "models": kept})
    before, after = _enabled(old), _enabled(config)
    differ = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    return Plan(
        config=config,
        removed=tuple(sorted((before.keys() - after.keys()) | differ)),
        added=tuple(sorted((after.keys() - before.keys()) | differ)),
        disabled=tuple(
            name
            for name, camera in sorted(cameras.items())
            if not camera.enabled and (name not in old.cameras or old.cameras[name].enabled)
        ),
        models=tuple(s for s in sorted(kept) if kept[s] != old.models[s]),
        sections=tuple(name for name in WHOLE if _part(old, name) != _part(new, name)),
        restart=tuple(restart),
    )


def _part(config: Config, key: str) -> object:
    return functools.reduce(getattr, key.split("."), config)


def _enabled(config: Config) -> dict[str, CameraConfig]:
    return {name: camera for name, camera in config.cameras.items() if camera.enabled}
