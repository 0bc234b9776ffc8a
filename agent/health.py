"""Watches whether every stage makes progress: tells what stalls, recovers, and keeps the watchdog.

A thread of its own looks every second. The service manager hears READY once the first frame of
every reachable camera was analysed, or at a deadline that names which was not; and WATCHDOG only
while nothing essential stalls.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agent.healthready import awaited, starting_line, status_line
from agent.stallplan import StallPlan
from agent.stallreport import log_stall, stacks
from agent.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.confighealth import HealthConfig
    from agent.healthready import CameraLook
    from agent.progress import Stage
    from agent.sdnotify import Notifier
    from agent.wire.events import EventKind, Severity

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Period of the watch; with a watchdog below 2 s, a quarter of that."""

WATCHDOG_PART = 0.25
LATE_S = 2.0
"""A look that comes so much too late says that the whole process stood still (SIGSTOP, a starved
processor): ages from before it are nobody's stall."""

STATUS_S = 5.0
"""Least time between two status lines."""

EXIT_CODE = 70
"""Exit code of a process that ends because of a stall (sysexits.h: EX_SOFTWARE)."""


class Vitals(Protocol):
    """What there is to watch."""

    def stages(self) -> Sequence[Stage]:
        """Every stage."""

    def cameras(self) -> Sequence[CameraLook]:
        """Every enabled camera."""

    def broker(self) -> str:
        """Why there is no connection, or empty."""

    def troubles(self) -> Sequence[str]:
        """Of models and updates."""

    def updating(self) -> Sequence[str]:
        """Slots and what their update is at."""

    def queues(self) -> dict[str, object]:
        """What waits where."""

    def engines(self) -> dict[str, object]:
        """How the engines are."""


class Told(Protocol):
    """`agent.events.Events`, as far as it is needed here."""

    def tell(self, kind: EventKind, severity: Severity, what: str, **data: object) -> None:
        """See there."""


class Health:
    """See the module.

    Args:
        settings: the limits.
        notifier: the service manager.
        vitals: what is watched.
        events: where stalls and recoveries are told.
        leave: ends the process with a code, after what was told has been sent or kept.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: HealthConfig,
        notifier: Notifier,
        vitals: Vitals,
        events: Told,
        leave: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._notifier = notifier
        self._vitals = vitals
        self._events = events
        self._leave = leave
        self._clock = clock
        self._plan = StallPlan(settings.exit_after_s)
        watchdog_s = notifier.watchdog_s
        self._period_s = min(LOOK_S, watchdog_s * WATCHDOG_PART if watchdog_s else LOOK_S)
        self._began_s = self._awake_s = self._looked_s = clock()
        self._serving = False
        self._failed_looks = 0
        self._ready = False
        self._stopping = False
        self._status = ""
        self._status_s = float("-inf")
        self._results = 0
        self._counted_s = self._began_s
        self._hung_cameras: set[str] = set()
        self._stop = threading.Event()
        self._group = ThreadGroup()

    @property
    def ready(self) -> bool:
        """Whether READY was said, and the end has not begun."""
        return self._ready and not self._stopping

    def state(self) -> dict[str, object]:
        """Plain values for the status page."""
        return {
            "ready": self.ready,
            "status": self._status,
            "stalled": list(self._plan.stalled),
            "holding": list(self._plan.holding),
            "failed_looks": self._failed_looks,
        }

    def configure(self, settings: HealthConfig) -> None:
        """Other limits, from the next look on."""
        self._settings = settings
        self._plan.exit_after_s = settings.exit_after_s

    def start(self) -> None:
        """Begin to watch; what is not begun yet rests."""
        self._awake_s = self._looked_s = self._clock()
        self._group.start("health", self._run)

    def starting(self, what: str) -> None:
        """Tell the service manager what the start is at."""
        self._say(f"starting: {what}", self._clock())

    def serving(self) -> None:
        """All stages run; the deadline for READY counts from here."""
        self._began_s = self._counted_s = self._clock()
        self._serving = True

    def stopping(self) -> None:
        """The end begins: nothing stalls any more."""
        self._stopping = True
        self._stop.set()
        self._status = "stopping: what waits is analysed, sent or kept"
        self._notifier.stopping(self._status)

    def close(self, timeout_s: float) -> None:
        """End the watch."""
        self._stop.set()
        self._group.wait(timeout_s)

    def look(self) -> None:
        """One look."""
        now = self._clock()
        if now - self._looked_s > self._period_s + LATE_S:
            log.warning("the process stood still for %.1f s", now - self._looked_s)
            self._awake_s = now
        self._looked_s = now
        self._act(now)
        if self._stopping:
            return
        if not self._plan.holding:
            self._notifier.alive()
        if not self._serving:
            return
        cameras = self._vitals.cameras()
        self._note_cameras(cameras)
        if not self._ready:
            self._consider_ready(cameras, now)
        self._tell_status(cameras, now)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self.look()
            except Exception:
                # It asks every part of the agent, so anything may be wrong. Without looks the
                # watchdog hears nothing, and the manager starts it all anew.
                self._failed_looks += 1
                log.exception(
                    "the watch over the stages failed, %d times by now", self._failed_looks
                )

    def _act(self, now: float) -> None:
        stages = [self._since_awake(stage, now) for stage in self._vitals.stages()]
        for step in self._plan.look(stages, now):
            stage = step.stage
            if step.action == "tell":
                self._tell_stall(
                    f"{stage.name} has made no progress for {stage.age_s or 0:.1f} s",
                    stage.name,
                    age_s=round(stage.age_s or 0.0, 2),
                    limit_s=stage.limit_s,
                    ages_s={s.name: round(s.age_s, 2) for s in stages if s.age_s is not None},
                )
            elif step.action == "renew":
                self._renew(stage)
            elif step.action == "over":
                self._recovered("over", stage.name, f"{stage.name} makes progress again", "info")
            else:
                what = f"{stage.name} stays stalled: the process ends, to be started anew"
                self._recovered("process", stage.name, what, "error")
                self._leave(EXIT_CODE)

    def _renew(self, stage: Stage) -> None:
        assert stage.renew is not None
        done = stage.renew()
        what = "is given up and begun anew" if done else "cannot be begun anew"
        severity: Severity = "warning" if done else "error"
        self._recovered("stage", stage.name, f"{stage.name} {what}", severity, done=done)

    def _since_awake(self, stage: Stage, now: float) -> Stage:
        if stage.age_s is None:
            return stage
        return replace(stage, age_s=min(stage.age_s, now - self._awake_s))

    def _note_cameras(self, cameras: Sequence[CameraLook]) -> None:
        """A camera without frames is opened anew by its own supervisor; it is told here."""
        hung = {c.name: c.reason for c in cameras if c.state == "stalled"}
        for name in sorted(set(hung) - self._hung_cameras):
            self._tell_stall(f"camera {name}: {hung[name]}", f"camera {name}")
            what = f"camera {name} is opened anew"
            self._recovered("camera", f"camera {name}", what, "warning")
        self._hung_cameras = set(hung)

    def _tell_stall(self, what: str, stage: str, **data: object) -> None:
        cameras = {
            c.name: {
                "state": c.state,
                "frame_age_s": c.frame_age_s,
                "result_age_s": c.result_age_s,
            }
            for c in self._vitals.cameras()
        }
        seen: dict[str, object] = {
            "cameras": cameras,
            "queues": self._vitals.queues(),
            "engines": self._vitals.engines(),
        }
        threads = stacks()
        self._events.tell("stall", "error", what, stage=stage, **data, **seen, stacks=threads)
        # Also where no broker takes the event: the journal of a device that is away tells all.
        log_stall(stage, {**data, **seen}, threads)

    def _recovered(
        self, action: str, stage: str, what: str, severity: Severity, **data: object
    ) -> None:
        self._events.tell("recovery", severity, what, action=action, stage=stage, **data)

    def _consider_ready(self, cameras: Sequence[CameraLook], now: float) -> None:
        missing = awaited(cameras)
        took_s = round(now - self._began_s, 2)
        if missing and took_s < self._settings.ready_timeout_s:
            self._say(starting_line(cameras), now)
            return
        self._ready = True
        self._status_s = float("-inf")
        if missing:
            what = f"ready, without a result of {', '.join(missing)} for {took_s:g} s"
            self._events.tell("agent", "warning", what, missing=missing, took_s=took_s)
        else:
            what = "ready"
            self._events.tell("agent", "info", what, took_s=took_s)
        self._notifier.ready(what)

    def _tell_status(self, cameras: Sequence[CameraLook], now: float) -> None:
        if not self._ready or now - self._status_s < STATUS_S:
            return
        results = sum(camera.results for camera in cameras)
        seconds = now - self._counted_s
        rate_hz = max(0, results - self._results) / seconds if seconds > 0 else 0.0
        self._results, self._counted_s = results, now
        troubles = [f"{name} stalled" for name in self._plan.stalled]
        troubles += self._vitals.troubles()
        vitals = self._vitals
        line = status_line(cameras, rate_hz, vitals.broker(), troubles, vitals.updating())
        self._say(line, now)

    def _say(self, text: str, now: float) -> None:
        self._status_s = now
        if text != self._status:
            self._status = text
            self._notifier.status(text)
