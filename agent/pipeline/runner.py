"""Keeps one model running: its workers, and a fresh engine when the old one has failed for good."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from agent.pipeline.worker import Health, LoadedModel, Worker
from agent.threads import ThreadGroup
from engines.errors import EngineError, InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.backoff import Backoff
    from agent.pipeline.intake import Intake
    from agent.pipeline.order import Sequencer
    from agent.pipeline.stats import PipelineStats

log = logging.getLogger(__name__)


class ModelRunner:
    """Runs one model slot until its intake ends.

    Args:
        slot: name of the model in the configuration.
        load: loads the model anew; raises EngineError.
        intake: where frames come from.
        sequencer: where results go.
        stats: where frames and times are counted.
        max_age_ns: by camera, the age above which a frame is not worth an inference.
        backoff: how long to wait between attempts to load.
        changed: called when `state` or `reason` may have changed.
    """

    def __init__(
        self,
        *,
        slot: str,
        load: Callable[[], LoadedModel],
        intake: Intake,
        sequencer: Sequencer,
        stats: PipelineStats,
        max_age_ns: Mapping[str, float],
        backoff: Backoff,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.slot = slot
        self.model: LoadedModel | None = None
        self._failure: str | None = None
        self._load = load
        self._intake = intake
        self._sequencer = sequencer
        self._stats = stats
        self._max_age_ns = max_age_ns
        self._backoff = backoff
        self._changed = changed
        self._health = Health(changed)
        self._stop = threading.Event()

    @property
    def reason(self) -> str | None:
        """Why the model gives no trustworthy results at present, or None."""
        return self._failure or self._health.reason

    def load(self) -> None:
        """Load the model, which `run` otherwise does first.

        Raises:
            EngineError: it cannot be loaded.
        """
        try:
            self.model = self._load()
        except EngineError as error:
            self._failure = str(error)
            raise
        self._failure = None

    def run(self) -> None:
        """Run workers until the intake ends; a failed engine is replaced, for ever."""
        while not self._stop.is_set():
            if self.model is None and not self._try_load():
                continue
            if self._run_workers():
                return
            self.unload()
            self._stop.wait(self._backoff.next_delay())

    def stop(self) -> None:
        """End waiting between attempts; running workers end with the intake."""
        self._stop.set()

    def unload(self) -> None:
        """Unload the engine."""
        if self.model is not None:
            self.model.engine.close()
            self.model = None

    def _try_load(self) -> bool:
        try:
            self.load()
        except EngineError as error:
            log.error("model %s: %s", self.slot, error)  # noqa: TRY400 - told, not a crash
            self._changed()
            self._stop.wait(self._backoff.next_delay())
            return False
        self._changed()
        return True

    def _run_workers(self) -> bool:
        """Returns False if the engine failed for good, True if the intake ended."""
        assert self.model is not None
        self._health = health = Health(self._changed)
        lanes = threading.Semaphore(self.model.engine.lanes)
        group = ThreadGroup(on_error=health.give_up)
        for number in range(self.model.engine.lanes + 1):
            worker = Worker(
                model=self.model,
                lanes=lanes,
                intake=self._intake,
                sequencer=self._sequencer,
                stats=self._stats,
                health=health,
                max_age_ns=self._max_age_ns,
            )
            group.start(f"model-{self.slot}-{number}", self._work, worker)
        group.wait()
        if not health.broken:
            self._backoff.reset()
        return not health.broken

    def _work(self, worker: Worker) -> None:
        try:
            worker.run()
        except InferenceError as error:
            # The worker has asked the others to end; `run` loads the engine anew.
            log.error("model %s failed: %s", self.slot, error)  # noqa: TRY400 - told, not a crash
