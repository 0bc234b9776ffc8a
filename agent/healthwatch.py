"""How the watch over the stages is joined with the parts of one run, and how a stall ends them."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from agent.health import Health
from agent.healthvitals import AgentVitals, Parts
from agent.sdnotify import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.builder import Builder
    from agent.capture.camera import Camera
    from agent.confighealth import HealthConfig
    from agent.events import Events
    from agent.governorrun import Governor
    from agent.healthvitals import Page, Turns
    from agent.mqtt import MqttClient
    from agent.pipeline.pipeline import Pipeline
    from agent.progress import Activity
    from agent.publish import Publisher
    from agent.spool import Spool

log = logging.getLogger(__name__)

LAST_WORDS_S = 1.0
"""Time, twice, for the broker to take what was told, and for the disk to keep what it did not."""

LEAVE_S = 3.0
"""The process ends after this even if the last words hang too."""

CLOSE_S = 0.2


class Watch:
    """The watch of one run.

    Args:
        settings: limits.
        pipeline: its models are stages.
        feeds: the enabled cameras by name.
        publisher, builder, governor: stages.
        updates: the updater, if there is one.
        settings_s: how long a change of settings has been at its step; None while there is none.
        page: the status page, if there is one at present.
        client: tells whether there is a broker.
        spool: keeps what was told when the process has to end.
        events: where stalls are told.
        troubles: of models and updates.

    Attributes:
        health: whether the agent is ready, for whoever shows it.
    """

    def __init__(
        self,
        settings: HealthConfig,
        *,
        pipeline: Pipeline,
        feeds: Callable[[], Mapping[str, Camera]],
        publisher: Publisher,
        builder: Builder,
        governor: Governor,
        updates: Turns | None,
        settings_s: Callable[[], float | None],
        page: Callable[[], Page | None],
        client: MqttClient,
        spool: Spool,
        events: Events,
        troubles: Callable[[], Sequence[str]],
    ) -> None:
        self._client = client
        self._spool = spool
        self._notifier = Notifier()
        self._vitals = AgentVitals(
            settings,
            pipeline=pipeline,
            feeds=feeds,
            parts=Parts(
                publisher=publisher.activity,
                link=client.activity,
                spool=spool.activity,
                builder=builder.activity,
                governor=governor,
                updates=updates,
                settings_s=settings_s,
                page=page,
            ),
            broker=lambda: "" if client.connected else client.reason or "not connected yet",
            queues=lambda: {"publisher": publisher.counters(), "spool": spool.counters()},
            troubles=troubles,
        )
        self.health = Health(settings, self._notifier, self._vitals, events, self._leave)

    @property
    def loop(self) -> Activity:
        """To be marked by the event loop, more often than the limit."""
        return self._vitals.loop

    @property
    def restoring(self) -> Activity:
        """To be entered while what updates brought is opened."""
        return self._vitals.restoring

    def state(self) -> dict[str, object]:
        """Plain values for the status page; see `Health.state`."""
        return self.health.state()

    def configure(self, settings: HealthConfig) -> None:
        """Other limits, from the next look on."""
        self._vitals.configure(settings)
        self.health.configure(settings)

    def starting(self, what: str) -> None:
        """Tell the service manager what the start is at."""
        self.health.starting(what)

    def start(self) -> None:
        """Begin to watch; what is not begun yet rests."""
        self.health.start()

    def serving(self) -> None:
        """All stages run."""
        self.loop.mark()
        self.health.serving()

    def reloading(self) -> None:
        """The configuration is read anew."""
        if self.health.ready:
            self._notifier.reloading("reading the configuration again")

    def reloaded(self) -> None:
        """The configuration was read."""
        if self.health.ready:
            self._notifier.ready("the configuration was read again")

    def stopping(self) -> None:
        """The end begins."""
        self.health.stopping()

    def close(self) -> None:
        """End the watch."""
        self.health.close(CLOSE_S)

    def _leave(self, code: int) -> None:
        """End the process; a thread that hangs cannot be ended in another way."""
        words = threading.Thread(target=self._last_words, name="last-words", daemon=True)
        words.start()
        words.join(LEAVE_S)
        os._exit(code)

    def _last_words(self) -> None:
        try:
            if (self._spool.activity.age_s or 0.0) > LAST_WORDS_S:
                # It hangs; a disk that does not answer must not keep what was told from being sent.
                self._spool.speak_past_thread()
                self._client.flush(LAST_WORDS_S)
                return
            self._client.flush(LAST_WORDS_S)
            self._spool.close(LAST_WORDS_S)
        except Exception:
            # The process ends in any case, whatever is wrong with what hangs; nobody counts on.
            log.exception("the last words were not sent")
