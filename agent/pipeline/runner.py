"""Keeps one model running: a fresh engine when the old one has failed for good, and swaps.

A swap is made between two frames. The new model's crew allocates while the old one still works;
then the old one retires, each worker after the frame it holds, and the new one takes the next
frame. The old engine is closed after its last worker has ended.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from agent import stallpoint
from agent.pipeline.crew import Crew
from agent.pipeline.tap import Tap
from agent.progress import Activity
from engines.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.backoff import Backoff
    from agent.pipeline.intake import Intake
    from agent.pipeline.order import Sequencer
    from agent.pipeline.stats import PipelineStats
    from agent.pipeline.worker import Health, LoadedModel

log = logging.getLogger(__name__)

Outcome = Literal["ended", "broken", "drained"]
"""How a crew's work ended: no more frames; the engine failed for good; its place is needed."""

STOPPING = "the pipeline is stopping"


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """A model that is to take over.

    Attributes:
        model: the model, or None if it is to be loaded once the old one is gone.
        load: gives it.
        done: told to whoever handed it over.
    """

    model: LoadedModel | None
    load: Callable[[], LoadedModel]
    done: Future[None] = field(default_factory=Future)

    def refuse(self, why: str) -> None:
        if self.model is not None:
            self.model.engine.close()
        self.done.set_exception(EngineError(why))


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
        changed: called when `model`, or `reason`, may have changed.

    Attributes:
        model: what is loaded, or None.
        tap: where an onlooker may look at frames and their results.
        broken_by: what the engine that failed for good last said, or None.
        loading: a model is being loaded, or its workers make ready.
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
        self.tap = Tap()
        self.broken_by: str | None = None
        self.loading = Activity()
        self._failure: str | None = None
        self._health: Health | None = None
        self._load = load
        self._intake = intake
        self._sequencer = sequencer
        self._stats = stats
        self._max_age_ns = max_age_ns
        self._backoff = backoff
        self._changed = changed
        # Guards what follows; notified when any of it, or a crew's progress, has changed.
        self._moved = threading.Condition()
        self._change: _Change | None = None
        self._stopped = False
        # Those that hold frames: the one that serves, and one that retires.
        self._crews: tuple[Crew, ...] = ()

    @property
    def reason(self) -> str | None:
        """Why the model gives no trustworthy results at present, or None."""
        health = self._health
        return self._failure or (health.reason if health is not None else None)

    def load(self) -> None:
        """Load the model, which `run` otherwise does first.

        Raises:
            EngineError: it cannot be loaded.
        """
        self._obtain(self._load)

    def run(self) -> None:
        """Run crews until the intake ends; a failed engine is replaced, for ever."""
        try:
            while not self._stopped:
                if self.model is None and not self._try_load():
                    self._pause()
                    continue
                outcome = self._serve()
                if outcome == "ended":
                    return
                if outcome == "broken":
                    self._unload()
                    self._pause()
        finally:
            self.stop()

    def swap(self, new: LoadedModel) -> Future[None]:
        """Have another model take over between two frames; from any thread, returns at once.

        Args:
            new: loaded and warm. It belongs to the runner from now on, which closes it in any case.

        Returns:
            Done when `new` serves and the old engine is closed. Fails with EngineError, while the
            old model serves on, if `new` cannot begin, a later swap overtook this one, or the
            runner has ended.
        """
        return self._hand_over(_Change(new, lambda: new))

    def replace(self, load: Callable[[], LoadedModel]) -> Future[None]:
        """As `swap`, for memory that does not hold two models: the old one is closed first.

        Frames wait, or are superseded, from its last frame until `load` has returned; if that
        fails, the slot's own way to load comes next.

        Args:
            load: called in the runner's thread; raises EngineError.
        """
        return self._hand_over(_Change(None, load))

    def stop(self) -> None:
        """End waiting between attempts and take no more swaps; the crew ends with the intake."""
        with self._moved:
            self._stopped = True
            change, self._change = self._change, None
            self._moved.notify_all()
        if change is not None:
            change.refuse(f"model {self.slot}: {STOPPING}")

    def close(self) -> None:
        """Unload the engine, after `run` has ended or where it was never called."""
        self.stop()
        self._unload()

    @property
    def busy_s(self) -> float | None:
        """How long the slowest worker has been at its frames; None if all wait."""
        ages = [crew.busy_s for crew in self._crews]
        return max((age for age in ages if age is not None), default=None)

    def give_up(self, limit_s: float) -> bool:
        """Have the model loaded anew, because an inference has not returned for `limit_s`.

        The thread that hangs keeps the old engine's memory until it comes back.

        Returns:
            False if nothing hangs so long, or it cannot be given up.
        """
        hung = [c for c in self._crews if (age := c.busy_s) is not None and age > limit_s]
        why = f"model {self.slot}: an inference has not returned for {limit_s:g} s"
        given_up = [crew.give_up(why) for crew in hung]
        return bool(hung) and all(given_up)

    def _hand_over(self, change: _Change) -> Future[None]:
        with self._moved:
            if self._stopped:
                refused: _Change | None = change
                why = STOPPING
            else:
                refused, self._change = self._change, change
                why = "a later model overtook this one"
            self._moved.notify_all()
        if refused is not None:
            refused.refuse(f"model {self.slot}: {why}")
        return change.done

    def _unload(self) -> None:
        if self.model is not None:
            self.model.engine.close()
            self.model = None

    def _obtain(self, load: Callable[[], LoadedModel]) -> None:
        try:
            with self.loading:
                stallpoint.hit("load")
                model = load()
            self._take(model)
        except EngineError as error:
            self._failure = str(error)
            raise

    def _take(self, model: LoadedModel) -> None:
        self.model, self._health, self._failure = model, None, None

    def _try_load(self) -> bool:
        """Take the model that was handed over meanwhile, or load one."""
        with self._moved:
            change, self._change = self._change, None
        return self._attempt(change)

    def _attempt(self, change: _Change | None) -> bool:
        """Have a model where there is none; False if there is none yet."""
        try:
            if change is None:
                self._obtain(self._load)
            else:
                self._adopt(change)
        except EngineError as error:
            log.error("model %s: %s", self.slot, error)  # noqa: TRY400 - told, not a crash
        self._changed()
        return self.model is not None

    def _adopt(self, change: _Change) -> None:
        if self._stopped:
            change.refuse(f"model {self.slot}: {STOPPING}")
            return
        try:
            self._obtain(change.load)
        except EngineError as error:
            change.done.set_exception(error)
            raise
        change.done.set_result(None)

    def _pause(self) -> None:
        """Wait before the next attempt; a handed-over model or `stop` ends it."""
        delay_s = self._backoff.next_delay()
        with self._moved:
            self._moved.wait_for(lambda: self._stopped or self._change is not None, delay_s)

    def _serve(self) -> Outcome:
        """Run `model`, and those that are swapped in."""
        assert self.model is not None
        crew = self._muster(self.model)
        self._health = crew.health
        crew.go()
        while (change := self._next_change(crew)) is not None:
            if change.model is not None:
                crew = self._exchange(crew, change, change.model)
                continue
            crew.retire()
            crew.join()
            self._dismiss(crew)
            self._attempt(change)
            return "drained"
        crew.join()
        if crew.abandoned:
            self._dismiss(crew)
        if crew.broken:
            self.broken_by = crew.health.reason
            return "broken"
        self._backoff.reset()
        return "ended"

    def _muster(self, model: LoadedModel) -> Crew:
        """A crew that is ready to go, or broken."""
        crew = Crew(
            model=model,
            intake=self._intake,
            sequencer=self._sequencer,
            stats=self._stats,
            tap=self.tap,
            max_age_ns=self._max_age_ns,
            changed=self._changed,
            moved=self._moved,
        )
        crew.start()
        self._crews = (*(c for c in self._crews if not c.ended), crew)
        with self.loading, self._moved:
            self._moved.wait_for(lambda: crew.prepared)
        return crew

    def _dismiss(self, crew: Crew) -> None:
        """Unload the model of a crew that has ended."""
        if crew.abandoned:
            # The thread that hangs in it closes it, if it ever comes back.
            self.model = None
        self._unload()

    def _next_change(self, crew: Crew) -> _Change | None:
        """Wait for a change, or for the crew's end, which leaves a change where it is."""
        with self._moved:
            self._moved.wait_for(lambda: crew.ended or self._change is not None)
            if crew.ended:
                return None
            change, self._change = self._change, None
            return change

    def _exchange(self, old: Crew, change: _Change, model: LoadedModel) -> Crew:
        """Let a new crew take over; returns the one that serves from now on."""
        new = self._muster(model)
        if new.broken:
            new.join()
            change.refuse(f"model {self.slot}: the new engine cannot run: {new.health.reason}")
            return old
        # From here on the old crew takes no more frames; the new one takes the next.
        old.retire()
        new.go()
        self.model, self._health, self._failure = model, new.health, None
        self._changed()
        old.join()
        if not old.abandoned:
            old.model.engine.close()
        change.done.set_result(None)
        return new
