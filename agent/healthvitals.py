"""What the watch over the stages looks at: gathered from the parts of one run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from agent.capture.camera import MAX_GIVEN_UP
from agent.healthready import CameraLook
from agent.progress import Activity, Stage
from agent.stallrules import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.capture.camera import Camera
    from agent.confighealth import HealthConfig
    from agent.pipeline.pipeline import Pipeline


class Turns(Protocol):
    """`agent.updates.Updates`, as far as it is needed here."""

    @property
    def turn_s(self) -> float | None:
        """How long the updater has been at its turn; None while it waits."""

    def under_way(self) -> Sequence[str]:
        """Slots and what their update is at."""


class Renewable(Protocol):
    """A part that can be begun anew: `agent.governorrun.Governor`."""

    @property
    def activity(self) -> Activity:
        """What it does at present."""

    def renew(self) -> bool:
        """Begin anew; says whether that went."""


class Page(Renewable, Protocol):
    """`agent.http.server.HttpServer`, as far as it is needed here."""

    @property
    def pictures_s(self) -> float | None:
        """How long a picture has been in the making."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is to watch beside the pipeline.

    Attributes:
        publisher, link, spool, builder: the activities of their threads.
        governor: with its own.
        updates: the updater, if there is one.
        settings_s: how long a change of settings has been at its step; None while there is none.
        page: the status page, if there is one at present.
    """

    publisher: Activity
    link: Activity
    spool: Activity
    builder: Activity
    governor: Renewable
    updates: Turns | None
    settings_s: Callable[[], float | None]
    page: Callable[[], Page | None]


class AgentVitals:
    """An `agent.health.Vitals`.

    Args:
        settings: limits.
        pipeline: its runners are stages.
        feeds: the enabled cameras by name.
        parts: the others.
        broker: why there is no connection, or empty.
        queues: what waits elsewhere.
        troubles: of models and updates.
        clock: monotonic seconds.

    Attributes:
        loop: to be marked by the event loop.
        restoring: what updates brought is being opened, before models are loaded.
    """

    def __init__(
        self,
        settings: HealthConfig,
        *,
        pipeline: Pipeline,
        feeds: Callable[[], Mapping[str, Camera]],
        parts: Parts,
        broker: Callable[[], str],
        queues: Callable[[], dict[str, object]],
        troubles: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = Activity(clock)
        self.restoring = Activity(clock)
        self._settings = settings
        self._pipeline = pipeline
        self._feeds = feeds
        self._parts = parts
        self._broker = broker
        self._queues = queues
        self._troubles = troubles
        self._clock = clock
        self._stuck = Activity(clock)
        self._results = _LastChanges()
        self._frames = _LastChanges()

    def configure(self, settings: HealthConfig) -> None:
        """Other limits, from the next look on."""
        self._settings = settings

    def stages(self) -> list[Stage]:
        """See `agent.health.Vitals`."""
        made, parts = partial(stage, self._settings), self._parts
        stages = []
        for slot, runner in list(self._pipeline.runners.items()):
            give_up = partial(runner.give_up, self._settings.stall_timeout_s)
            stages.append(made("model", runner.busy_s, of=slot, renew=give_up))
            stages.append(made("loading", runner.loading.age_s, of=slot))
        governor = parts.governor
        stages += [
            made("publisher", parts.publisher.age_s),
            made("link", parts.link.age_s),
            made("spool", parts.spool.age_s),
            made("event loop", self.loop.age_s),
            made("cameras", self._stuck_s()),
            made("restoring updates", self.restoring.age_s),
            made("builder", parts.builder.age_s),
            made("settings", parts.settings_s()),
            made("governor", governor.activity.age_s, renew=governor.renew),
        ]
        if parts.updates is not None:
            stages.append(made("updater", parts.updates.turn_s))
        page = parts.page()
        if page is not None:
            stages.append(made("http", page.activity.age_s, renew=page.renew))
            stages.append(made("http pictures", page.pictures_s))
        return stages

    def cameras(self) -> list[CameraLook]:
        """See `agent.health.Vitals`."""
        counted, now = self._pipeline.stats.total(), self._clock()
        looks = []
        for name, feed in list(self._feeds().items()):
            results = int(str(counted.get(name, {}).get("results", 0)))
            status = feed.status
            result_age_s = self._results.age_s(name, results, now)
            frame_age_s = self._frames.age_s(name, feed.arrived, now)
            looks.append(
                CameraLook(name, status.state, status.reason, results, result_age_s, frame_age_s)
            )
        return looks

    def broker(self) -> str:
        """See `agent.health.Vitals`."""
        return self._broker()

    def troubles(self) -> Sequence[str]:
        """See `agent.health.Vitals`."""
        return self._troubles()

    def updating(self) -> Sequence[str]:
        """See `agent.health.Vitals`."""
        updates = self._parts.updates
        return () if updates is None else updates.under_way()

    def queues(self) -> dict[str, object]:
        """See `agent.health.Vitals`."""
        now = self._clock()
        frames = {}
        for slot in list(self._pipeline.runners):
            since = self._pipeline.waiting_since(slot)
            oldest_s = None if since is None else round(now - since, 2)
            frames[slot] = {"waiting": self._pipeline.waiting(slot), "oldest_s": oldest_s}
        return {"frames": frames, **self._queues()}

    def engines(self) -> dict[str, object]:
        """See `agent.health.Vitals`."""
        found: dict[str, object] = {}
        for slot, runner in list(self._pipeline.runners.items()):
            model = runner.model
            found[slot] = {
                "backend": None if model is None else model.engine.backend,
                "precision": None if model is None else model.engine.precision,
                "busy_s": _rounded(runner.busy_s),
                "loading_s": _rounded(runner.loading.age_s),
                "reason": runner.reason,
            }
        return found

    def _stuck_s(self) -> float | None:
        live = [feed for feed in list(self._feeds().values()) if feed.live]
        if not live or any(feed.given_up < MAX_GIVEN_UP for feed in live):
            self._stuck.rest()
        elif self._stuck.age_s is None:
            self._stuck.mark()
        return self._stuck.age_s


class _LastChanges:
    """When each camera's count was first seen as it is."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def age_s(self, name: str, count: int, now: float) -> float | None:
        """Seconds since then; None while nothing was counted."""
        before = self._seen.get(name)
        if before is None or count != before[0]:
            before = self._seen[name] = (count, now)
        return round(now - before[1], 1) if count else None


def _rounded(age_s: float | None) -> float | None:
    return None if age_s is None else round(age_s, 2)
