"""The workers of one loaded model, from their first buffers to their last frame."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from agent.pipeline.worker import Health, Worker
from agent.threads import ThreadGroup
from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.pipeline.intake import Intake
    from agent.pipeline.order import Sequencer
    from agent.pipeline.stats import PipelineStats
    from agent.pipeline.tap import Tap
    from agent.pipeline.worker import LoadedModel

log = logging.getLogger(__name__)


class Crew:
    """Threads that run one engine: one more than it has lanes.

    They allocate what they need first and take frames only after `go`, so that a model which cannot
    even begin never touches a frame.

    Args:
        model: the loaded model; not closed here.
        intake: where frames come from.
        sequencer: where results go.
        stats: where frames and times are counted.
        tap: where an onlooker may look.
        max_age_ns: by camera, the age above which a frame is not worth an inference.
        changed: called when the reason in `health` may have changed.
        moved: notified, in a worker's thread, when `prepared` or `ended` may have changed.

    Attributes:
        model: as given.
        health: how the inferences go.
        broken: True once the engine must be loaded anew.
        abandoned: a thread of it hangs in the engine; the last one that comes back closes it.
    """

    def __init__(
        self,
        *,
        model: LoadedModel,
        intake: Intake,
        sequencer: Sequencer,
        stats: PipelineStats,
        tap: Tap,
        max_age_ns: Mapping[str, float],
        changed: Callable[[], None],
        moved: threading.Condition,
    ) -> None:
        self.model = model
        self.health = Health(changed)
        self.broken = False
        self.abandoned = False
        self._intake = intake
        self._moved = moved
        self._wanted = True
        self._go = threading.Event()
        self._group = ThreadGroup(on_error=self._break_off)
        lanes = threading.Semaphore(model.engine.lanes)
        self._workers = [
            Worker(
                model=model,
                lanes=lanes,
                intake=intake,
                sequencer=sequencer,
                stats=stats,
                tap=tap,
                health=self.health,
                max_age_ns=max_age_ns,
                wanted=lambda: self._wanted,
            )
            for _ in range(model.engine.lanes + 1)
        ]
        self._preparing = self._running = len(self._workers)

    @property
    def prepared(self) -> bool:
        """True once every worker could take a frame at once, or the engine is broken."""
        return self._preparing == 0 or self.broken

    @property
    def ended(self) -> bool:
        """True once no worker will touch the engine again, or nobody waits for that any more."""
        return self._running == 0 or self.abandoned

    @property
    def busy_s(self) -> float | None:
        """How long the slowest worker has been at its frames; None if all wait."""
        if self.abandoned:
            return None
        ages = [worker.activity.age_s for worker in self._workers]
        return max((age for age in ages if age is not None), default=None)

    def start(self) -> None:
        """Start the threads; they allocate and wait for `go`."""
        for number, worker in enumerate(self._workers):
            self._group.start(f"model-{self.model.ref.slot}-{number}", self._work, worker)

    def go(self) -> None:
        """Take frames."""
        self._go.set()

    def retire(self) -> None:
        """Have every worker end after the frames that it holds; returns at once."""
        self._wanted = False
        self._go.set()
        self._intake.wake()

    def give_up(self, why: str) -> bool:
        """Wait for this crew no longer: its tickets are completed, and its engine is broken.

        Returns:
            False if that cannot be done.
        """
        self.health.failed(InferenceError(why))
        self.retire()
        given_up = [worker.give_up() for worker in self._workers]
        if not all(given_up):
            return False
        with self._moved:
            self.broken = True
            self.abandoned = self._running > 0
            self._moved.notify_all()
        return True

    def join(self) -> None:
        """Wait until every worker has ended, or was given up.

        Raises:
            BaseException: a worker died of something else than its engine.
        """
        with self._moved:
            self._moved.wait_for(lambda: self.ended)
            if self.abandoned:
                return
        self._group.wait()

    def _work(self, worker: Worker) -> None:
        try:
            worker.prepare()
            with self._moved:
                self._preparing -= 1
                self._moved.notify_all()
            self._go.wait()
            worker.run()
        except InferenceError as error:
            # The runner loads the engine anew, or goes on with the one before.
            log.error("model %s failed: %s", self.model.ref.slot, error)  # noqa: TRY400 - told, not a crash
            self.health.failed(error)
            self._break_off()
        finally:
            worker.close()
            with self._moved:
                self._running -= 1
                late = self.abandoned and self._running == 0
                self._moved.notify_all()
            if late:
                self.model.engine.close()

    def _break_off(self) -> None:
        self.broken = True
        self.retire()
