"""The long-running agent: wires cameras, models, publisher and broker together, and ends them.

The event loop owns signals and telemetry; everything that blocks has a thread with an owner
(`agent.threads`). The order of ending is the road of a frame: cameras, workers, publisher, broker.
"""

from __future__ import annotations

import functools
import logging
import secrets
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from agent import __version__, servicegroup
from agent import log as logs
from agent.builder import Builder
from agent.capture.base import is_live
from agent.capture.camera import Camera
from agent.desired import Afar, DesiredFile
from agent.device import device_id
from agent.ending import Ending
from agent.errors import ConfigError
from agent.events import Events
from agent.figures import Figures
from agent.governorengine import LightEngines
from agent.governorrun import Governor
from agent.healthwatch import Watch
from agent.herald import Herald
from agent.hotchanges import HotChanges
from agent.jetson import BoardFiles
from agent.lastgood import LastGood
from agent.memory import limit_arenas
from agent.modelslot import ModelSlot
from agent.mqtt import MqttClient
from agent.news import News
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.plans import PlanRequest, default_cache_dir
from agent.publish import Publisher
from agent.reload import Reloader
from agent.signals import WANTED, Signals, hold_reloads
from agent.slotengines import PlannedEngines
from agent.spool import Spool
from agent.statefolder import spool_folder, state_folder
from agent.tasks import await_end, beat, report
from agent.threads import ThreadGroup
from agent.tls import client_context
from agent.wire.topics import Topics

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agent.capture.camera import CameraStatus
    from agent.config import CameraConfig, UpdatesConfig
    from agent.confighttp import HttpConfig
    from agent.detection import ModelRef
    from agent.http.server import HttpServer
    from agent.pipeline.worker import LoadedModel
    from agent.startconfig import Start
    from agent.updates import Updates
    from agent.wire.buildstate import BuildState
    from agent.wire.configstate import ConfigState

log = logging.getLogger(__name__)

BOOT_ID_BYTES = 4
"""A boot id tells one run of the agent from the next; it only has to differ."""

OPEN_PAGE_S = 3.0
"""The look-up of its address can take long; nothing else waits for it, nor does a stop."""

RESTART_CODE = 75
"""Exit code when an operator's command asks for a restart (sysexits.h: EX_TEMPFAIL), so that a
service manager which restarts on failure does it."""


def run(begin: Start, source: Path) -> int:
    """Run the agent until a signal, or until every file is analysed.

    Args:
        begin: the settings, and where they are from.
        source: the file, which SIGHUP reads again.

    Returns:
        The exit code: 0, or `RESTART_CODE`.

    Raises:
        AgentError: a mistake in the configuration.
        EngineError: no model can be loaded.
    """
    hold_reloads()
    limit_arenas()
    servicegroup.claim()
    agent = Agent(begin, source)
    anyio.run(agent.serve)
    return RESTART_CODE if agent.restarting else 0


class Agent:
    """The parts of one run.

    Args:
        begin: the settings, and where they are from.
        source: the file.

    Attributes:
        restarting: it ends, or has ended, to be started anew.
    """

    def __init__(self, begin: Start, source: Path) -> None:
        config, mistake = begin.config, begin.mistake
        self.restarting = False
        self._config = config
        self._mistake = mistake
        self._device = device_id(config.device)
        self._boot = secrets.token_hex(BOOT_ID_BYTES)
        self._topics = Topics(config.mqtt.prefix, self._device)
        self._enabled = {name: c for name, c in config.cameras.items() if c.enabled}
        if not self._enabled and not mistake:
            raise ConfigError("cameras: none is enabled; enable one")
        if config.mqtt.tls is not None:
            # The client reads them for every connection; a mistake in them is told at the start.
            client_context(config.mqtt.tls)
        self._client = MqttClient(config.mqtt, self._device, self._boot)
        # Before everything that has something to tell.
        self._spool = Spool(
            self._client,
            self._topics,
            self._device,
            self._boot,
            config.spool,
            spool_folder(config) if config.spool.enabled else None,
            config.mqtt.detections.expiry_s,
        )
        self._events = Events(self._spool.take_event)
        self._news = News(self._events)
        self._publisher = Publisher(
            self._client,
            self._topics,
            config.mqtt,
            self._device,
            self._boot,
            durable=self._spool if config.spool.detections else None,
        )
        self._herald = Herald(self._client, self._topics, self._device, self._boot, self)
        self._slots = {name: self._slot(name) for name in config.models}
        self._feeds: dict[str, Camera] = {}
        self._pipeline = Pipeline(
            cameras={name: self._plan(name, camera) for name, camera in self._enabled.items()},
            models={name: functools.partial(self._load, name) for name in config.models},
            sink=self._publisher,
            queue_frames=config.pipeline.queue_frames,
            changed=self._changed,
        )
        self._builder = Builder(self._slots, self._pipeline)
        self._governor = Governor(
            config.governor,
            BoardFiles().look,
            self._feeds.copy,
            LightEngines(self._slots, self._pipeline, self._builder, PlannedEngines),
            self._events,
        )
        self._updates = None if config.updates is None else self._prepare(config.updates)
        self._figures = Figures(
            client=self._client,
            topics=self._topics,
            device=self._device,
            boot=self._boot,
            pipeline=self._pipeline,
            publisher=self._publisher,
            spool=self._spool,
            governor=self._governor,
            updates=self._updates,
        )
        self._watch = Watch(
            config.health,
            pipeline=self._pipeline,
            feeds=self._feeds.copy,
            publisher=self._publisher,
            builder=self._builder,
            governor=self._governor,
            updates=self._updates,
            settings_s=lambda: self._reloader.activity.age_s,
            page=lambda: self._http,
            client=self._client,
            spool=self._spool,
            events=self._events,
            troubles=self.reasons,
        )
        self._http: HttpServer | None = None
        self._helpers = ThreadGroup()
        hot = HotChanges(
            self._pipeline,
            self._slots,
            self._builder,
            self._plan,
            self._camera_removed,
            {
                "log": lambda new: logs.set_up(new.log),
                "governor": lambda new: self._governor.configure(new.governor),
                "health": lambda new: self._watch.configure(new.health),
                "mqtt.detections": lambda new: self._publisher.configure(new.mqtt.detections),
            },
        )
        copy = LastGood(source)
        afar = Afar(DesiredFile(copy.path), begin.desired, begin.not_taken)
        self._reloader = Reloader(source, config, hot, copy, self._events, self._tell_config, afar)

    def cameras(self) -> dict[str, bool]:
        """See `agent.herald.Told`."""
        return {name: camera.enabled for name, camera in self._reloader.config.cameras.items()}

    def models(self) -> dict[str, ModelRef | None]:
        """See `agent.herald.Told`."""
        served = {slot: runner.model for slot, runner in self._pipeline.runners.items()}
        return {slot: None if model is None else model.ref for slot, model in served.items()}

    def build(self, slot: str) -> BuildState | None:
        """See `agent.herald.Told`."""
        return self._slots[slot].state

    def reasons(self) -> list[str]:
        """See `agent.herald.Told`."""
        reasons = [r.reason for r in self._pipeline.runners.values() if r.reason]
        return [*reasons, *self._troubles()]

    def _troubles(self) -> list[str]:
        told = None if self._updates is None else self._updates.reason
        return [*([told] if told else []), *self._reloader.troubles]

    def _open_page(self, settings: HttpConfig) -> None:
        # Only agents that listen pay for what a server needs.
        from agent.http.parts import sources_of  # noqa: PLC0415
        from agent.http.server import HttpServer  # noqa: PLC0415

        sources = sources_of(
            device=self._device,
            boot=self._boot,
            config=lambda: self._reloader.config,
            feeds=self._feeds,
            pipeline=self._pipeline,
            slots=self._slots,
            events=self._events,
            state=None if self._updates is None else state_folder(self._config),
            watched=self._watch.state,
            troubles=self._troubles,
            **self._figures.looks(),
        )
        server = HttpServer(settings, sources)
        if not server.start():
            self._events.tell("agent", "warning", server.reason or "http does not listen")
        self._http = server

    async def serve(self) -> None:
        """Start everything, wait for the end, stop everything.

        Raises:
            EngineError: no model can be loaded.
        """
        self._events.tell("agent", "info", "started", version=__version__)
        self._client.start()
        self._spool.start(self._events.tell)
        self._publisher.start()
        try:
            # Cameras are opened, and what the page needs is imported, while models are loaded.
            self._pipeline.connect()
            if self._config.http.enabled:
                self._helpers.start("http-open", self._open_page, self._config.http)
            self._watch.start()
            if self._updates is not None:
                self._watch.starting("opening what updates brought")
                with self._watch.restoring:
                    self._updates.restore()
            self._watch.starting("loading models")
            for slot, error in self._pipeline.load().items():
                log.error("model %s: %s; it is tried again", slot, error)
            self._herald.announce()
            self._news.models(self.models())
            with anyio.open_signal_receiver(*WANTED) as signals:
                await self._run(signals)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._close)

    async def _run(self, signals: AsyncIterator[signal.Signals]) -> None:
        self._pipeline.start()
        if not self._helpers.wait(OPEN_PAGE_S):
            log.warning("the status page is not open after %g s; it may come later", OPEN_PAGE_S)
        self._builder.start()
        self._governor.start()
        self._reloader.started(self._mistake)
        if self._updates is not None:
            self._updates.start()
            self._changed()
        self._watch.serving()
        ended = anyio.Event()
        obedience = Signals(self._reloader, self._watch, self._restart)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(obedience.listen, signals, ended)
            if not self._reloader.bare:
                # If a thread of the pipeline crashed, `_close` raises its error.
                tasks.start_soon(await_end, self._pipeline.wait, ended)
            tasks.start_soon(report, self._figures.tell, self._config.mqtt.telemetry_interval_s)
            tasks.start_soon(beat, self._watch.loop)
            await ended.wait()
            tasks.cancel_scope.cancel()

    def _plan(self, name: str, camera: CameraConfig) -> CameraPlan:
        feed = Camera(name, camera, functools.partial(self._camera_changed, name))
        self._feeds[name] = feed
        return CameraPlan(feed, camera.model, camera.max_age_ms)

    def _slot(self, name: str) -> ModelSlot:
        users = [c for c in self._enabled.values() if c.model == name]
        settings = self._config.pipeline
        request = PlanRequest(
            name,
            self._config.models[name],
            live=any(is_live(camera) for camera in users),
            cache_dir=settings.cache_dir or default_cache_dir(),
            cache_max_mb=settings.cache_max_mb,
        )
        return ModelSlot(request, PlannedEngines, functools.partial(self._herald.model, name))

    def _prepare(self, settings: UpdatesConfig) -> Updates:
        # Only agents that receive updates pay for what they need: tuf and pydantic's documents.
        from agent.updatereceiver import Surroundings  # noqa: PLC0415
        from agent.updates import Updates  # noqa: PLC0415

        return Updates(
            Surroundings(
                settings=settings,
                mqtt=self._config.mqtt,
                client=self._client,
                topics=self._topics,
                device=self._device,
                boot=self._boot,
                pipeline=self._pipeline,
                slots=self._slots,
                builder=self._builder,
                restart=self._restart,
                changed=self._changed,
                settled=lambda: self._reloader,
            )
        )

    def _camera_changed(self, name: str, status: CameraStatus) -> None:
        self._herald.camera(name, status)
        self._news.camera(name, status)

    def _camera_removed(self, name: str) -> None:
        self._feeds.pop(name, None)
        self._camera_changed(name, Camera.disabled())

    def _tell_config(self, state: ConfigState) -> None:
        self._herald.config(state)
        self._changed()

    def _changed(self) -> None:
        self._herald.state()
        self._news.models(self.models())
        self._news.degraded(tuple(self.reasons()))

    def _restart(self) -> None:
        log.warning("the agent is to be started anew")
        self.restarting = True
        # The end travels as if all cameras had ended.
        self._pipeline.stop()

    def _load(self, name: str) -> LoadedModel:
        model = self._slots[name].load()
        # What serves at once comes first; whether it can be bettered is a question for later.
        self._builder.want(name)
        return model

    def _close(self) -> None:
        Ending(
            pipeline=self._pipeline,
            client=self._client,
            spool=self._spool,
            publisher=self._publisher,
            events=self._events,
            herald=self._herald,
            builder=self._builder,
            governor=self._governor,
            watch=self._watch,
            updates=self._updates,
            http=self._http,
            telemetry=self._figures.tell,
            shutdown_timeout_s=self._config.pipeline.shutdown_timeout_s,
        ).end(restart=self.restarting)
