"""Joins cameras, models and a sink: who hands what to whom, and how it all ends.

Ending travels downstream: cameras stop, their intakes drain, workers finish what they hold, the
sink gets the last result. Nothing calls back upstream.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agent.backoff import Backoff
from agent.errors import PipelineError
from agent.pipeline.intake import Intake
from agent.pipeline.order import Sequencer
from agent.pipeline.runner import ModelRunner
from agent.pipeline.stats import NS_PER_MS, PipelineStats
from agent.threads import ThreadGroup
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from agent.frame import Frame
    from agent.interfaces import Sink
    from agent.pipeline.worker import LoadedModel

RELOAD_INITIAL_S = 0.5
RELOAD_MAX_S = 60.0
"""Bounds of the back-off between attempts to load a failed model."""


REMOVE_TIMEOUT_S = 5.0
"""Time for a camera that is taken out to end."""

MAX_NAMES = 256
"""Names of cameras that one run may see; of each, its numbers are remembered."""


class Feed(Protocol):
    """A camera as the pipeline sees it."""

    @property
    def live(self) -> bool:
        """True if the newest frame wins; False if none may be lost."""

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        """Deliver frames until the source ends for good, `deliver` says False, or `stop` is set."""


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """One camera's place in the pipeline.

    Attributes:
        feed: where its frames come from.
        slot: which model looks at them.
        max_age_ms: frames older than this are not inferred; None for no limit.
    """

    feed: Feed
    slot: str
    max_age_ms: float | None = None


@dataclass(slots=True, eq=False)
class _Station:
    """A camera's plan, and its thread."""

    plan: CameraPlan
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class Pipeline:
    """All threads of capture and inference.

    Args:
        cameras: plans by camera name.
        models: how to load each model slot that a camera names, or may name later.
        sink: takes the results.
        queue_frames: frames of a lossless camera that may wait.
        changed: called when a model's health changes, from any thread.
    """

    def __init__(
        self,
        *,
        cameras: Mapping[str, CameraPlan],
        models: Mapping[str, Callable[[], LoadedModel]],
        sink: Sink,
        queue_frames: int,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.stats = PipelineStats(cameras)
        # What other threads iterate is replaced, never changed.
        self._cameras = {name: _Station(plan) for name, plan in cameras.items()}
        self._names = set(cameras)
        self._changing = threading.Lock()
        self._stopping = False
        self._connected = False
        self._models = models
        self._sink = sink
        self._queue_frames = queue_frames
        self._changed = changed
        self._group = ThreadGroup(on_error=self.stop)
        self._intakes: dict[str, Intake] = {}
        self._sequencers: dict[str, Sequencer] = {}
        self._max_age_ns: dict[str, float] = {}
        self.runners: dict[str, ModelRunner] = {}
        for slot in sorted({plan.slot for plan in cameras.values()}):
            self._open_slot(slot, {n: plan for n, plan in cameras.items() if plan.slot == slot})
        for name, plan in cameras.items():
            self._limit_age(name, plan)

    def connect(self) -> None:
        """Start the cameras; opening one takes as long as a model. Frames wait until `start`.

        `start` does it where this was not called.
        """
        if self._connected:
            return
        self._connected = True
        for name, station in self._cameras.items():
            self._group.start(f"camera-{name}", self._capture, name, station)

    def load(self) -> dict[str, EngineError]:
        """Load every model.

        Returns:
            The models that could not be loaded, while others could; `start` tries them again.

        Raises:
            EngineError: none could be loaded.
        """
        failures: dict[str, EngineError] = {}
        for slot, runner in self.runners.items():
            try:
                runner.load()
            except EngineError as error:
                failures[slot] = error
        if failures and len(failures) == len(self.runners):
            raise next(iter(failures.values()))
        return failures

    def start(self) -> None:
        """Start the threads."""
        for slot, runner in self.runners.items():
            self._group.start(f"model-{slot}", runner.run)
        self.connect()

    def add(self, name: str, plan: CameraPlan) -> None:
        """Take in one more camera while the others run; call after `start`.

        A camera that had the name before is followed: numbers of tickets go on.

        Raises:
            PipelineError: the name is taken, or nothing can be taken in any more.
        """
        with self._changing:
            if name in self._cameras:
                raise PipelineError(f"camera {name}: it runs already; remove it first")
            if name not in self._names and len(self._names) >= MAX_NAMES:
                raise PipelineError(
                    f"camera {name}: {MAX_NAMES} names were used since the start; restart the agent"
                )
            if self._stopping:
                raise PipelineError(f"camera {name}: the pipeline is stopping")
            lossless = not plan.feed.live
            if plan.slot not in self.runners:
                self._open_slot(plan.slot, {name: plan})
                self._group.start(f"model-{plan.slot}", self.runners[plan.slot].run)
            else:
                self._sequencers[plan.slot].add(name)
                if not self._intakes[plan.slot].add(name, lossless=lossless):
                    raise PipelineError(
                        f"camera {name}: all cameras of the model {plan.slot} have ended, and its "
                        "workers with them; restart the agent"
                    )
            self._limit_age(name, plan)
            self.stats.add(name)
            self._names.add(name)
            station = _Station(plan)
            self._cameras = {**self._cameras, name: station}
            self._group.start(f"camera-{name}", self._capture, name, station)

    def remove(self, name: str, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """End one camera while the others run; what it has delivered is still analysed.

        Raises:
            PipelineError: there is no such camera, or it does not end in time. Then its frames are
                not taken any more, and it can be removed again later.
        """
        with self._changing:
            station = self._cameras.get(name)
            if station is None:
                raise PipelineError(f"camera {name}: there is none that runs")
            station.stop.set()
            self._intakes[station.plan.slot].remove(name)
            if not station.ended.wait(timeout_s):
                raise PipelineError(
                    f"camera {name}: it does not end within {timeout_s:g} s; restart the agent"
                )
            self._cameras = {n: s for n, s in self._cameras.items() if n != name}
            self.stats.remove(name)

    def swap(self, slot: str, model: LoadedModel) -> Future[None]:
        """Have another model take over a slot between two frames; see `ModelRunner.swap`."""
        return self.runners[slot].swap(model)

    def replace(self, slot: str, load: Callable[[], LoadedModel]) -> Future[None]:
        """As `swap`, where memory does not hold two models; see `ModelRunner.replace`."""
        return self.runners[slot].replace(load)

    def model(self, slot: str) -> LoadedModel | None:
        """The model that serves a slot, if there is one."""
        runner = self.runners.get(slot)
        return None if runner is None else runner.model

    def cameras_of(self, slot: str) -> dict[str, bool]:
        """The cameras of a slot by name, and whether each is live."""
        plans = {name: station.plan for name, station in self._cameras.items()}
        return {name: plan.feed.live for name, plan in plans.items() if plan.slot == slot}

    def waiting(self, slot: str) -> int:
        """How many frames wait for a slot's model."""
        return self._intakes[slot].waiting()

    def waiting_since(self, slot: str) -> float | None:
        """When the oldest of them was captured, monotonic seconds; None if none waits."""
        return self._intakes[slot].waiting_since()

    def stop(self) -> None:
        """Stop the cameras; what they have delivered is still analysed. Returns at once."""
        self._stopping = True
        for station in self._cameras.values():
            station.stop.set()
        for runner in self.runners.values():
            runner.stop()
        for intake in self._intakes.values():
            intake.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until every camera has ended and every frame is analysed.

        Returns:
            False if that takes longer than `timeout_s`.

        Raises:
            BaseException: the error that a thread died of.
        """
        return self._group.wait(timeout_s)

    def abandon(self) -> None:
        """Throw away the frames that wait; for a stop whose time is over."""
        for intake in self._intakes.values():
            for camera, count in intake.discard().items():
                self.stats.drop(camera, "shutdown", count)

    def close(self) -> None:
        """Unload the models, after `wait` has returned True."""
        for runner in self.runners.values():
            runner.close()

    def _open_slot(self, slot: str, users: Mapping[str, CameraPlan]) -> None:
        intake = Intake({n: not p.feed.live for n, p in users.items()}, self._queue_frames)
        sequencer = Sequencer(users, self._sink)
        runner = ModelRunner(
            slot=slot,
            load=self._models[slot],
            intake=intake,
            sequencer=sequencer,
            stats=self.stats,
            max_age_ns=self._max_age_ns,
            backoff=Backoff(RELOAD_INITIAL_S, RELOAD_MAX_S),
            changed=self._changed,
        )
        self._intakes = {**self._intakes, slot: intake}
        self._sequencers = {**self._sequencers, slot: sequencer}
        self.runners = {**self.runners, slot: runner}

    def _limit_age(self, name: str, plan: CameraPlan) -> None:
        if plan.max_age_ms is None:
            self._max_age_ns.pop(name, None)
        else:
            self._max_age_ns[name] = plan.max_age_ms * NS_PER_MS

    def _capture(self, name: str, station: _Station) -> None:
        intake = self._intakes[station.plan.slot]
        if self._stopping:
            # `stop` may have come between the look in `add` and this thread.
            station.stop.set()
            intake.close()
        try:
            station.plan.feed.run(intake.put, station.stop)
        finally:
            intake.end(name)
            station.ended.set()
