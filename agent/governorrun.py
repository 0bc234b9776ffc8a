"""Carries out what the governor decides: reads sensors, slows cameras, changes engines, tells."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agent import stallpoint
from agent.governor import Limits, Look, State, decide
from agent.progress import Activity
from agent.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.configgovernor import GovernorConfig
    from agent.governor import Step
    from agent.jetson import Readings
    from agent.wire.events import EventKind, Severity

log = logging.getLogger(__name__)

POWER_LOOKS = 5
"""The power that is judged is the mean of so many looks: an inference is a peak."""

RATE_WEIGHT = 0.3
"""Weight of the newest look in a camera's measured rate."""

CHANGE = 0.1
"""A camera's limit is set anew when it would change by more than this share."""


ENGINES_S = 300.0
"""For a change of engines, whose parts have deadlines of their own: builds that run are broken off,
and in each slot an old engine ends."""


class SlowedCamera(Protocol):
    """What is asked of a camera."""

    @property
    def live(self) -> bool:
        """Only live cameras are slowed: of a file, every frame is wanted."""

    @property
    def arrived(self) -> int:
        """Frames that came from the device since the start."""

    @property
    def wanted_fps(self) -> float | None:
        """Frames a second by configuration; None for all."""

    def set_limit(self, fps: float | None) -> None:
        """Let no more frames through than this; None: as configured."""


class Teller(Protocol):
    """Where events are told."""

    def tell(self, kind: EventKind, severity: Severity, what: str, **data: object) -> None:
        """See `agent.events.Events.tell`."""


class Lighter(Protocol):
    """What is asked of `agent.governorengine.LightEngines`."""

    def engage(self) -> tuple[str, ...]:
        """Have lighter engines take over; the slots in which one serves."""

    def release(self) -> None:
        """Have the slots' own engines take over again."""


class Governor:
    """A thread that looks every `interval_s`.

    Args:
        config: the settings.
        look: reads the sensors.
        cameras: those there are now, by name.
        lighter: changes engines.
        events: where steps are told.
        clock: monotonic seconds.

    Attributes:
        activity: a look at the sensors, and what follows from it.
    """

    def __init__(
        self,
        config: GovernorConfig,
        look: Callable[[], Readings],
        cameras: Callable[[], Mapping[str, SlowedCamera]],
        lighter: Lighter,
        events: Teller,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = self._used = config
        self._look = look
        self._cameras = cameras
        self._lighter = lighter
        self._events = events
        self._clock = clock
        self._group = ThreadGroup()
        self._wake = threading.Event()
        self._closing = False
        self.activity = Activity()
        # Whose turn it is: what a thread brings back that was given up is thrown away.
        self._turn = 0
        self._reading = False
        self._state = State()
        self._engine = config.engine
        self._slots: tuple[str, ...] = ()
        self._power: deque[float] = deque(maxlen=POWER_LOOKS)
        self._counted: int | None = None
        self._slowed_by: tuple[str, ...] = ()
        # None: there never was a sensor, as on many a PC.
        self._sees: bool | None = None
        self._rates = _Rates()
        self._limits: dict[str, float] = {}
        self._limited: dict[str, SlowedCamera] = {}
        self._steps = {"down": 0, "up": 0}
        self._reason = ""
        self._headroom_c: float | None = None

    def start(self) -> None:
        """Begin."""
        self._group.start("governor", self._run, self._turn)

    def renew(self) -> bool:
        """Begin anew with another thread, because a sensor's driver does not answer.

        Returns:
            False if something else hangs: engines that are being changed are left alone.
        """
        if self._closing or not self._reading:
            return False
        self._turn += 1
        self.activity.rest()
        self.start()
        return True

    def configure(self, config: GovernorConfig) -> None:
        """Other settings, from the next look on; it begins with doing everything."""
        self._config = config
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Look no more; what was slowed stays so.

        Returns:
            False if it still looks after `timeout_s`.
        """
        self._closing = True
        self._wake.set()
        return self._group.wait(timeout_s)

    def state(self) -> dict[str, object]:
        """For telemetry and the status page."""
        state: dict[str, object] = {
            "enabled": self._config.enabled,
            "level": self._state.level,
            "levels": self._levels,
            "fps_limits": {name: round(fps, 2) for name, fps in dict(self._limits).items()},
            "light_engines": list(self._slots),
            "steps_down": self._steps["down"],
            "steps_up": self._steps["up"],
        }
        if self._reason:
            state["reason"] = self._reason
        if self._headroom_c is not None:
            state["headroom_c"] = round(self._headroom_c, 1)
        return state

    @property
    def _levels(self) -> int:
        return len(self._config.steps) + self._engine

    def _run(self, turn: int) -> None:
        while not self._closing and turn == self._turn:
            self.activity.mark()
            try:
                readings = self._read()
                if turn != self._turn:
                    return
                self._reading = False
                if self._config is not self._used:
                    self._used = self._config
                    self._begin_anew(self._used)
                self._judge(readings)
            except Exception:
                # A mistake in here must not leave the cameras slowed for ever.
                log.exception("a look of the governor failed")
            if turn == self._turn:
                self.activity.rest()
            self._wake.wait(self._config.interval_s)
            self._wake.clear()

    def _read(self) -> Readings:
        self._reading = True
        stallpoint.hit("govern")
        return self._look()

    def _begin_anew(self, config: GovernorConfig) -> None:
        self._engine = config.engine
        self._state = State()
        self._reason = ""
        self._apply()

    def step(self) -> Step | None:
        """Look once and do what follows."""
        return self._judge(self._look())

    def _judge(self, readings: Readings) -> Step | None:
        now = self._clock()
        self._rates.note(now, self._cameras())
        config = self._config
        tightest = readings.tightest(config.limit_c)
        self._headroom_c = None if tightest is None else tightest[1]
        if (watts := readings.total_w) is not None:
            self._power.append(watts)
        power_w = sum(self._power) / len(self._power) if watts is not None else None
        slowed = self._slowed(readings)
        if not config.enabled:
            return None
        self._note_blindness(blind=self._headroom_c is None and power_w is None)
        limits = Limits(
            levels=self._levels,
            margin_c=config.margin_c,
            release_c=config.margin_c + config.hysteresis_c,
            power_w=config.power_w,
            hold_s=config.hold_s,
            calm_s=config.calm_s,
        )
        before = self._state.level
        look = Look(now, self._headroom_c, power_w, slowed)
        self._state, step = decide(self._state, look, limits)
        self._apply()
        if step is not None and self._state.level != before:
            self._steps[step] += 1
            self._tell(step, before, readings, look)
        return step

    def _note_blindness(self, *, blind: bool) -> None:
        """Tell that sensors which were there tell nothing any more: nothing changes then."""
        if blind and self._sees:
            self._events.tell(
                "governor",
                "warning",
                "no sensor tells heat or power any more: it stays as it is until one does",
                **self.state(),
            )
        elif not blind and self._sees is False:
            self._events.tell("governor", "info", "sensors tell heat or power again")
        if not blind or self._sees is not None:
            self._sees = not blind

    def _slowed(self, readings: Readings) -> bool:
        """Whether the board slows itself down, or did since the last look; told when it begins."""
        counted = sum(readings.overcurrent.values()) + readings.hot_events
        rose = self._counted is not None and counted > self._counted
        self._counted = counted
        by = readings.capping
        if by and not self._slowed_by:
            self._events.tell(
                "governor",
                "warning",
                f"the board slows itself down: {', '.join(by)}; cool it better, or lower "
                "the frame rate or the power mode",
                **readings.as_dict(),
            )
        elif self._slowed_by and not by:
            self._events.tell("governor", "info", "the board slows itself down no more")
        self._slowed_by = by
        return bool(by) or rose

    def _apply(self) -> None:
        """Make cameras and engines what the level says; also those that came meanwhile."""
        level, config = self._state.level, self._config
        share = 1.0 if level == 0 else (1.0, *config.steps)[min(level, len(config.steps))]
        cameras = self._cameras()
        for name in self._limits.keys() - cameras.keys():
            del self._limits[name]
        for name, camera in cameras.items():
            if self._limited.get(name, camera) is not camera:
                # Its settings were changed: another camera has the name, and no limit yet.
                self._limits.pop(name, None)
            self._slow(name, camera, share)
        self._limited = {name: cameras[name] for name in self._limits}
        if level > len(config.steps) and not self._slots:
            self.activity.mark(ENGINES_S)
            self._slots = self._lighter.engage()
            if not self._slots:
                # Not offered again until the settings change: looking for engines is work.
                self._engine = False
                self._state = replace(self._state, level=len(config.steps), calm_since_s=None)
        elif level <= len(config.steps) and self._slots:
            self._slots = ()
            self.activity.mark(ENGINES_S)
            self._lighter.release()

    def _slow(self, name: str, camera: SlowedCamera, share: float) -> None:
        if not camera.live:
            return
        rate = self._rates.of(name)
        known = [fps for fps in (camera.wanted_fps, rate) if fps]
        if share == 1.0 or not known:
            if name in self._limits:
                del self._limits[name]
                camera.set_limit(None)
            return
        base = min(known)
        fps = min(base, max(self._config.min_fps, share * base))
        if abs(fps - self._limits.get(name, 0.0)) > CHANGE * fps:
            self._limits[name] = fps
            camera.set_limit(fps)

    def _tell(self, step: Step, before: int, readings: Readings, look: Look) -> None:
        tightest = readings.tightest(self._config.limit_c)
        why = []
        if readings.capping:
            why.append(f"slowed by {', '.join(readings.capping)}")
        if tightest is not None:
            zone, left = tightest
            why.append(f"{zone.name} at {zone.celsius:.1f} °C, {left:.1f} below slowing down")
        if look.power_w is not None and self._config.power_w is not None:
            why.append(f"{look.power_w:.1f} of {self._config.power_w:g} W")
        self._reason = "; ".join(why) if self._state.level else ""
        if self._slots:
            doing = f"lighter engines in {', '.join(self._slots)}"
        elif self._limits:
            slowed = sorted(self._limits.items())
            doing = ", ".join(f"{name} at {fps:.3g} fps" for name, fps in slowed)
        else:
            doing = "everything" if self._state.level == 0 else "no live camera to slow"
        direction = {"down": "less", "up": "more"}[step]
        self._events.tell(
            "governor",
            "warning" if step == "down" else "info",
            f"does {direction}: {doing} ({'; '.join(why)})",
            step=step,
            level_before=before,
            **self.state(),
            host=readings.as_dict(),
        )


class _Rates:
    """How many frames a second each camera delivers, measured."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def note(self, now_s: float, cameras: Mapping[str, SlowedCamera]) -> None:
        for name, camera in cameras.items():
            arrived = camera.arrived
            before_s, before = self._seen.get(name, (now_s, arrived))
            self._seen[name] = now_s, arrived
            # A camera that is away delivers nothing; what it delivered is what it will again.
            if now_s > before_s and arrived > before:
                rate = (arrived - before) / (now_s - before_s)
                old = self._rates.get(name, rate)
                self._rates[name] = old + RATE_WEIGHT * (rate - old)
        for name in self._seen.keys() - cameras.keys():
            del self._seen[name]
            self._rates.pop(name, None)

    def of(self, name: str) -> float | None:
        return self._rates.get(name)
