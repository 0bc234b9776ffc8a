"""Joins cameras, models and a sink: who hands what to whom, and how it all ends.

Ending travels downstream: cameras stop, their intakes drain, workers finish what they hold, the
sink gets the last result. Nothing calls back upstream.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.backoff import Backoff
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


class Pipeline:
    """All threads of capture and inference.

    Args:
        cameras: plans by camera name.
        models: how to load each model slot that a camera names.
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
        self._cameras = cameras
        self._stop = threading.Event()
        self._group = ThreadGroup(on_error=self.stop)
        self._intakes: dict[str, Intake] = {}
        self.runners: dict[str, ModelRunner] = {}
        for slot in sorted({plan.slot for plan in cameras.values()}):
            users = {name: plan for name, plan in cameras.items() if plan.slot == slot}
            intake = Intake({n: not p.feed.live for n, p in users.items()}, queue_frames)
            self._intakes[slot] = intake
            self.runners[slot] = ModelRunner(
                slot=slot,
                load=models[slot],
                intake=intake,
                sequencer=Sequencer(users, sink),
                stats=self.stats,
                max_age_ns={
                    n: p.max_age_ms * NS_PER_MS
                    for n, p in users.items()
                    if p.max_age_ms is not None
                },
                backoff=Backoff(RELOAD_INITIAL_S, RELOAD_MAX_S),
                changed=changed,
            )

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
        for name, plan in self._cameras.items():
            self._group.start(f"camera-{name}", self._capture, name, plan)

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
        return {n: plan.feed.live for n, plan in self._cameras.items() if plan.slot == slot}

    def waiting(self, slot: str) -> int:
        """How many frames wait for a slot's model."""
        return self._intakes[slot].waiting()

    def stop(self) -> None:
        """Stop the cameras; what they have delivered is still analysed. Returns at once."""
        self._stop.set()
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

    def _capture(self, name: str, plan: CameraPlan) -> None:
        intake = self._intakes[plan.slot]
        try:
            plan.feed.run(intake.put, self._stop)
        finally:
            intake.end(name)
