"""What the watch over the stages looks at: gathered from the parts of one run."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from agent.capture.camera import MAX_GIVEN_UP
from agent.healthready import CameraLook
from agent.progress import Activity, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.capture.camera import Camera
    from agent.pipeline.pipeline import Pipeline

UPDATER_LIMIT_S = 120.0
"""A turn of the updater writes to the disk and switches models."""

LINK_LIMIT_S = 120.0
"""A name that is looked up and an attempt to connect, for each protocol, come to an end on their
own; a message that is handled takes no time."""

CAMERAS_LIMIT_S = 60.0
"""While every live camera has as many hanging reads as are allowed, nothing can be opened anew."""


class Turns(Protocol):
    """`agent.updates.Updates`, as far as it is needed here."""

    @property
    def turn_s(self) -> float | None:
        """How long the updater has been at its turn; None while it waits."""


class AgentVitals:
    """An `agent.health.Vitals`.

    Args:
        pipeline: its runners are stages.
        feeds: the enabled cameras by name.
        publisher: the activity of its thread.
        link: likewise, of the link to the broker.
        updates: the updater, if there is one.
        broker: why there is no connection, or empty.
        queues: what waits elsewhere.
        troubles: of models and updates.
        limit_s: for stages that work in fractions of a second.
        clock: monotonic seconds.

    Attributes:
        loop: to be marked by the event loop.
    """

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        feeds: Callable[[], Mapping[str, Camera]],
        publisher: Activity,
        link: Activity,
        updates: Turns | None,
        broker: Callable[[], str],
        queues: Callable[[], dict[str, object]],
        troubles: Callable[[], Sequence[str]],
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = Activity(clock)
        self._pipeline = pipeline
        self._feeds = feeds
        self._publisher = publisher
        self._link = link
        self._updates = updates
        self._broker = broker
        self._queues = queues
        self._troubles = troubles
        self._limit_s = limit_s
        self._clock = clock
        self._stuck = Activity(clock)
        self._results: dict[str, tuple[int, float]] = {}

    def stages(self) -> list[Stage]:
        """See `agent.health.Vitals`."""
        limit_s = self._limit_s
        stages = [
            Stage(f"model {slot}", runner.busy_s, limit_s, partial(runner.give_up, limit_s))
            for slot, runner in list(self._pipeline.runners.items())
        ]
        stages.append(Stage("publisher", self._publisher.age_s, limit_s))
        stages.append(Stage("link", self._link.age_s, max(limit_s, LINK_LIMIT_S)))
        stages.append(Stage("event loop", self.loop.age_s, limit_s))
        stages.append(Stage("cameras", self._stuck_s(), max(limit_s, CAMERAS_LIMIT_S)))
        if self._updates is not None:
            turn_s = self._updates.turn_s
            stages.append(Stage("updater", turn_s, max(limit_s, UPDATER_LIMIT_S)))
        return stages

    def cameras(self) -> list[CameraLook]:
        """See `agent.health.Vitals`."""
        counted, now = self._pipeline.stats.total(), self._clock()
        looks = []
        for name, feed in list(self._feeds().items()):
            results = int(str(counted.get(name, {}).get("results", 0)))
            before = self._results.get(name, (0, now))
            if results != before[0]:
                before = self._results[name] = (results, now)
            status = feed.status
            age_s = round(now - before[1], 1) if results else None
            looks.append(CameraLook(name, status.state, status.reason, results, age_s))
        return looks

    def broker(self) -> str:
        """See `agent.health.Vitals`."""
        return self._broker()

    def troubles(self) -> Sequence[str]:
        """See `agent.health.Vitals`."""
        return self._troubles()

    def queues(self) -> dict[str, object]:
        """See `agent.health.Vitals`."""
        waiting = {slot: self._pipeline.waiting(slot) for slot in list(self._pipeline.runners)}
        return {"frames": waiting, **self._queues()}

    def engines(self) -> dict[str, object]:
        """See `agent.health.Vitals`."""
        found: dict[str, object] = {}
        for slot, runner in list(self._pipeline.runners.items()):
            model = runner.model
            found[slot] = {
                "backend": None if model is None else model.engine.backend,
                "precision": None if model is None else model.engine.precision,
                "busy_s": runner.busy_s,
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
