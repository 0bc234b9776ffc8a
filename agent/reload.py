"""Brings another configuration into force while the agent runs, and tells how that went.

A configuration with a mistake changes nothing. What can change is changed part by part: a part that
fails is told, and keeps no other from changing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Protocol

from agent.configfile import load
from agent.errors import AgentError, ConfigError
from agent.progress import Activity
from agent.reloadplan import plan
from agent.wire.configstate import ConfigState
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.bundle.documents import Settings
    from agent.config import CameraConfig, Config, ModelConfig
    from agent.desired import Afar, Desired
    from agent.lastgood import LastGood
    from agent.news import Teller
    from agent.reloadplan import Plan

log = logging.getLogger(__name__)


class Site(Protocol):
    """The running agent, as a reload changes it. Each raises AgentError or EngineError."""

    def add_camera(self, name: str, camera: CameraConfig) -> None:
        """Start a camera."""

    def remove_camera(self, name: str) -> None:
        """End a camera."""

    def change_model(self, slot: str, model: ModelConfig) -> None:
        """Have a model with other settings take over a slot."""

    def change_section(self, name: str, config: Config) -> None:
        """Have a section of `agent.reloadplan.WHOLE` be as in `config`."""


TROUBLES = {
    "recovered": ("the configuration has a mistake; the last good one serves",),
    "control": ("the configuration has a mistake and there is no good one; no camera runs",),
}
"""By the state of the configuration."""


class Reloader:
    """Reads the file again, and applies what differs; so for settings from afar, which lie over it.

    Args:
        source: the file.
        config: what is in force.
        site: the running agent.
        copy: where what runs well is kept.
        events: where it is told.
        told: called with every new state.
        afar: settings from afar, as they are at the start.

    Attributes:
        config: what is in force.
        state: what was told last.
        activity: the step of a change that is under way; the watch over the stages looks at it.
    """

    def __init__(
        self,
        source: Path,
        config: Config,
        site: Site,
        copy: LastGood,
        events: Teller,
        told: Callable[[ConfigState], None],
        afar: Afar,
    ) -> None:
        self.config = config
        self._cameras_wanted = any(camera.enabled for camera in config.cameras.values())
        self.state = ConfigState("applied")
        self._source = source
        self._site = site
        self._copy = copy
        self._events = events
        self._told = told
        self._afar = afar
        self._lock = threading.Lock()
        self.activity = Activity()

    @property
    def bare(self) -> bool:
        """The agent has no cameras, only its link: there is no good configuration."""
        return not self._cameras_wanted

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why the device is degraded, as far as its settings are concerned."""
        return TROUBLES.get(self.state.state, ())

    def holds(self) -> bool:
        """Whether the file has no mistake any more; one is told. For a bare agent."""
        with self._lock:
            try:
                self._load(None)
            except ConfigError as error:
                self._tell(ConfigState("control", str(error)))
                return False
            return True

    def started(self, mistake: str = "") -> None:
        """The agent serves with what it was started with.

        Args:
            mistake: why that is the last good copy and not the file; empty if it is the file.
        """
        if mistake and self.bare:
            self._tell(ConfigState("control", mistake))
            self._events.tell(
                "config",
                "error",
                "the configuration has a mistake and there is no good one; no camera runs: "
                + mistake,
            )
            return
        if mistake:
            self._tell(ConfigState("recovered", mistake))
            self._events.tell(
                "config",
                "error",
                f"the configuration has a mistake; the last good one serves: {mistake}",
            )
            return
        self._tell(ConfigState("applied"))
        try:
            # Read again: if it was changed meanwhile, it must hold to be kept.
            text = self._copy.read_source()
            if self._load(self._afar.taken) == self.config:
                self._copy.keep(text)
        except ConfigError as error:
            log.warning("%s", error)

    def reload(self) -> ConfigState:
        """Read the file and bring it into force; blocks, raises nothing for what is wrong with it.

        Returns:
            How it went; it was told already.
        """
        with self._lock:
            waiting = self._afar.waiting
            if waiting is not None:
                # What stood in their way may have been in the file.
                with contextlib.suppress(ConfigError):
                    self._take_up(waiting)
                    return self.state
            try:
                text, new = self._read(self._afar.taken)
            except ConfigError as error:
                state = ConfigState("refused", str(error))
            else:
                state = self._bring(text, new)
            self._tell(state)
            return self.state

    def take(self, settings: Settings, envelope: bytes) -> None:
        """Bring an operator's settings into force; blocks, and raises nothing.

        Args:
            settings: verified.
            envelope: that they came in.
        """
        with self._lock:
            if not self._afar.is_new(envelope):
                # The broker sends them again at every connection.
                return
            try:
                self._take_up(self._afar.considered(settings, envelope))
            except ConfigError as error:
                self._events.tell("config", "error", self._afar.refuse(str(error)))
                self._tell(self.state)

    def doubt(self, reason: str) -> None:
        """Settings came that no operator signed, or that are not for this device or this time."""
        with self._lock:
            self._afar.refuse(reason)
            self._tell(self.state)

    def proven(self) -> None:
        """The agent runs well with the settings that it took last."""
        with self._lock:
            self._afar.proven()

    def _take_up(self, wanted: Desired) -> None:
        """Bring settings from afar into force, and tell.

        Raises:
            ConfigError: they cannot be; nothing has changed.
        """
        text, new = self._read(wanted)
        self._afar.begin(wanted)
        state = self._bring(text, new, afar=wanted.version.counter)
        try:
            self._afar.keep(wanted)
        except ConfigError as error:
            # In force they are; the broker sends them again after a restart.
            log.warning("%s", error)
        self._tell(state)

    def _read(self, wanted: Desired | None) -> tuple[bytes, Config]:
        return self._copy.read_source(), self._load(wanted)

    def _bring(self, text: bytes, new: Config, **data: object) -> ConfigState:
        with self.activity:
            state = self._apply(plan(self.config, new), data)
        if state.state == "applied":
            self._keep(text)
        return state

    def _load(self, wanted: Desired | None) -> Config:
        new = load(self._source, over=None if wanted is None else wanted.values)
        if not any(camera.enabled for camera in new.cameras.values()):
            raise ConfigError(f"{self._source}: cameras: none is enabled; enable one")
        return new

    def _apply(self, way: Plan, data: Mapping[str, object]) -> ConfigState:
        failures = list(self._carry_out(way))
        state = ConfigState("partly" if failures else "applied", "; ".join(failures), way.restart)
        waits = f"; with a restart: {', '.join(way.restart)}" * bool(way.restart)
        if failures:
            self._events.tell(
                "config",
                "error",
                f"not all settings came into force: {state.reason}{waits}",
                **data,
            )
        elif not way.empty:
            self._events.tell(
                "config",
                "warning" if way.restart else "info",
                f"{'settings came into force' if way.changes else 'nothing changes now'}{waits}",
                cameras=sorted({*way.removed, *way.added, *way.disabled}),
                models=list(way.models),
                restart=list(way.restart),
                **data,
            )
        return state

    def _carry_out(self, way: Plan) -> Iterator[str]:
        """Do it, and give what failed. What failed is not noted as in force: it is tried again."""
        cameras = dict(self.config.cameras)
        models = dict(self.config.models)
        for name in way.sections:
            self._site.change_section(name, way.config)
        tops = [name.partition(".")[0] for name in way.sections]
        changed = {top: getattr(way.config, top) for top in tops}
        self.config = self.config.model_copy(update=changed)
        for slot in way.models:
            self.activity.mark()
            try:
                self._site.change_model(slot, way.config.models[slot])
                models[slot] = way.config.models[slot]
            except (AgentError, EngineError) as error:
                yield f"model {slot}: {error}"
        stuck = set()
        for name in way.removed:
            self.activity.mark()
            try:
                self._site.remove_camera(name)
                del cameras[name]
            except AgentError as error:
                stuck.add(name)
                yield str(error)
        cameras.update({n: c for n, c in way.config.cameras.items() if not c.enabled})
        for name in cameras.keys() - way.config.cameras.keys() - stuck:
            del cameras[name]
        self.config = self.config.model_copy(update={"cameras": dict(cameras), "models": models})
        for name in way.added:
            if name in stuck:
                continue
            # The settings are looked up while the camera starts.
            camera = cameras[name] = way.config.cameras[name]
            self.config = self.config.model_copy(update={"cameras": dict(cameras)})
            self.activity.mark()
            try:
                self._site.add_camera(name, camera)
            except AgentError as error:
                del cameras[name]
                self.config = self.config.model_copy(update={"cameras": dict(cameras)})
                yield str(error)

    def _keep(self, text: bytes) -> None:
        try:
            self._copy.keep(text)
        except ConfigError as error:
            log.warning("%s", error)

    def _tell(self, state: ConfigState) -> None:
        if state.state == "refused":
            self._events.tell("config", "error", f"the configuration is not taken: {state.reason}")
        self.state = self._afar.told(state)
        self._told(self.state)
