"""What one thread does with frames: take, preprocess, infer, decode, hand on.

An engine runs `lanes` inferences at a time and has one worker more, so while every lane is
inferring, one worker preprocesses the next frame or decodes the last. A frame that was preprocessed
while it waited for a lane is exchanged if its live camera has given a newer one meanwhile:
preprocessing costs a hundredth of an inference, an old frame costs its age.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent import stallpoint
from agent.detection import Result, StageTimes
from agent.errors import OutputError
from agent.pipeline.stats import NS_PER_MS
from agent.progress import Activity
from agent.vision.preprocess import Preprocessor
from engines.base import FrameContext
from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from agent.detection import Detections, ModelRef
    from agent.pipeline.intake import Intake, Ticket
    from agent.pipeline.order import Sequencer
    from agent.pipeline.stats import PipelineStats
    from agent.pipeline.tap import Tap
    from agent.vision.decode import Decoder
    from agent.vision.preprocess import Placement
    from engines.base import Context, Engine
    from engines.model import ModelInfo

log = logging.getLogger(__name__)

MAX_FAILURES = 5
"""Inferences that may fail in a row before the worker gives up and the engine is loaded anew."""

FIRST_BATCH = 1
"""Size of the batch that a worker prepares for before its first frame, where the model leaves it
open; buffers for others are made when they are first needed."""


GUARD_S = 1.0
"""Whoever gives a worker up waits so long for the completion of a ticket that is under way."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run: the engine, and how frames become inputs and outputs detections."""

    ref: ModelRef
    info: ModelInfo
    engine: Engine
    decoder: Decoder
    batch: int


class Health:
    """Whether a loaded model works; shared by its workers, read by the daemon.

    Args:
        changed: called when `reason` comes or goes.

    Attributes:
        reason: what is wrong at present, or None.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._changed = changed
        self._in_a_row = 0
        self.reason: str | None = None

    def ok(self) -> None:
        """An inference gave a usable output."""
        if self.reason is not None:
            with self._lock:
                self._in_a_row, self.reason = 0, None
            log.info("the model gives usable outputs again")
            self._changed()

    def failed(self, error: Exception) -> int:
        """An inference failed, or its output was unusable; returns how many did in a row."""
        with self._lock:
            self._in_a_row += 1
            first, self.reason = self.reason is None, str(error)
            count = self._in_a_row
        if first:
            log.error("%s", error)
            self._changed()
        return count


class Slot:
    """One context and what fills its input, for batches of one size."""

    def __init__(self, model: LoadedModel, batch: int) -> None:
        self.context: Context = model.engine.create_context(batch)
        info = model.info
        self._preprocessor = Preprocessor(info.resize, info.width, info.height)
        self._frames: FrameContext | None = None
        if isinstance(self.context, FrameContext):
            self._frames = self.context
        else:
            (name,) = self.context.inputs
            self._images: NDArray[Any] = self.context.inputs[name]

    def write(self, index: int, ticket: Ticket) -> Placement:
        """Preprocess a ticket's frame into place `index` of the batch.

        Raises:
            InferenceError: the engine does that itself, and failed.
        """
        pixels = ticket.frame.pixels
        if self._frames is None:
            return self._preprocessor.write(pixels, self._images[index])
        window, placement = self._preprocessor.fit(pixels.shape[1], pixels.shape[0])
        self._frames.write_frame(index, pixels, window.source, window.target)
        return placement


class Worker:
    """One thread's part of running a model.

    Args:
        model: the loaded model, shared with the other workers.
        lanes: one permit for each inference that may run at a time, shared likewise.
        intake: where frames come from.
        sequencer: where results go.
        stats: where frames and times are counted.
        tap: where an onlooker may look.
        health: where failures are told.
        max_age_ns: by camera, the age above which a frame is not worth an inference.
        wanted: whether to take more frames; after its answer has changed, wake the intake.

    Attributes:
        activity: what it does at present.
    """

    def __init__(
        self,
        *,
        model: LoadedModel,
        lanes: threading.Semaphore,
        intake: Intake,
        sequencer: Sequencer,
        stats: PipelineStats,
        tap: Tap,
        health: Health,
        max_age_ns: Mapping[str, float],
        wanted: Callable[[], bool],
    ) -> None:
        self._model = model
        self._lanes = lanes
        self._intake = intake
        self._sequencer = sequencer
        self._stats = stats
        self._tap = tap
        self._health = health
        self._max_age_ns = max_age_ns
        self._wanted = wanted
        self._slots: dict[int, Slot] = {}
        self.activity = Activity()
        # Held while a ticket is completed: by this thread, or by whoever gives it up.
        self._guard = threading.Lock()
        self._held: list[Ticket] = []
        self._given_up = False

    def prepare(self) -> None:
        """Allocate what the first frame will need, so that it is not late.

        Raises:
            InferenceError: the engine gives no context.
        """
        self._slot(FIRST_BATCH)

    def run(self) -> None:
        """Work until the intake has ended or this worker is not wanted any more.

        Raises:
            InferenceError: the engine failed too often in a row; load it anew.
        """
        while tickets := self._intake.take(self._model.batch, self._wanted):
            with self.activity:
                self._process(tickets)

    def give_up(self) -> bool:
        """Complete what this worker holds, because its thread has not come back from native code.

        If it comes back after all it completes nothing more.

        Returns:
            False if it hangs while it completes a ticket, so that nobody else can.
        """
        if not self._guard.acquire(timeout=GUARD_S):
            return False
        try:
            self._given_up = True
            held, self._held = list(self._held), []
            for ticket in held:
                self._complete_dropped(ticket, "stalled")
            return True
        finally:
            self._guard.release()

    def close(self) -> None:
        """Give the contexts back, in the thread that used them."""
        for slot in self._slots.values():
            slot.context.close()
        self._slots.clear()

    def _process(self, tickets: list[Ticket]) -> None:
        open_tickets = list(tickets)
        with self._guard:
            if self._given_up:
                for ticket in open_tickets:
                    self._complete_dropped(ticket, "stalled")
                return
            self._held = open_tickets
        try:
            self._analyse(open_tickets)
        except InferenceError as error:
            self._drop(open_tickets, "inference_failed")
            if self._health.failed(error) >= MAX_FAILURES:
                raise
        finally:
            # Whatever went wrong, a ticket that is never completed would stop its camera for good.
            self._drop(open_tickets, "internal_error")

    def _analyse(self, tickets: list[Ticket]) -> None:
        """Run the tickets; removes each from the list as it is completed."""
        slot = self._slot(len(tickets))
        began = time.monotonic_ns()
        placements = [slot.write(i, ticket) for i, ticket in enumerate(tickets)]
        pre_ns = time.monotonic_ns() - began
        with self._lanes:
            for i, ticket in enumerate(tickets):
                newer = self._exchange(tickets, i, ticket)
                if newer is not None:
                    began = time.monotonic_ns()
                    placements[i] = slot.write(i, newer)
                    pre_ns += time.monotonic_ns() - began
            began = time.monotonic_ns()
            stale = [self._is_stale(ticket, began) for ticket in tickets]
            if all(stale):
                self._drop(tickets, "too_old")
                return
            stallpoint.hit("infer")
            outputs = slot.context.infer()
        infer_ns = time.monotonic_ns() - began
        # A batch's frames keep their places in the outputs while the list shrinks.
        for i, (ticket, old) in enumerate(zip(tuple(tickets), stale, strict=True)):
            if old:
                self._drop(tickets, "too_old", ticket)
                continue
            began = time.monotonic_ns()
            try:
                detections = self._model.decoder(outputs, i, placements[i])
            except OutputError as error:
                self._health.failed(error)
                self._drop(tickets, "invalid_output", ticket)
                continue
            ended = time.monotonic_ns()
            self._health.ok()
            times = _times(ticket, pre_ns, infer_ns, ended - began, ended)
            self._finish(tickets, ticket, detections, times)

    def _slot(self, batch: int) -> Slot:
        size = self._model.info.max_batch or batch
        if size not in self._slots:
            self._slots[size] = Slot(self._model, size)
        return self._slots[size]

    def _is_stale(self, ticket: Ticket, now_ns: int) -> bool:
        limit = self._max_age_ns.get(ticket.frame.camera)
        return limit is not None and now_ns - ticket.frame.monotonic_ns > limit

    def _exchange(self, tickets: list[Ticket], i: int, ticket: Ticket) -> Ticket | None:
        with self._guard:
            # A frame taken after this worker was given up would be lost without a word.
            newer = None if self._given_up else self._intake.newer(ticket)
            if newer is not None:
                tickets[i] = newer
            return newer

    def _finish(
        self, tickets: list[Ticket], ticket: Ticket, detections: Detections, times: StageTimes
    ) -> None:
        frame = ticket.frame
        result = Result(
            camera=frame.camera,
            frame_index=frame.index,
            width=frame.width,
            height=frame.height,
            monotonic_ns=frame.monotonic_ns,
            wall_s=frame.wall_s,
            model=self._model.ref,
            detections=detections,
            times=times,
        )
        with self._guard:
            if self._given_up:
                return
            tickets.remove(ticket)
            self._stats.drop(frame.camera, "superseded", ticket.skipped)
            self._stats.result(frame.camera, times, len(detections))
            self._sequencer.complete(ticket, result)
        self._tap.offer(frame, result)

    def _drop(self, tickets: list[Ticket], cause: str, only: Ticket | None = None) -> None:
        """Complete tickets, or one of them, without a result; takes them out of the list."""
        with self._guard:
            if self._given_up:
                return
            for ticket in list(tickets) if only is None else [only]:
                tickets.remove(ticket)
                self._complete_dropped(ticket, cause)

    def _complete_dropped(self, ticket: Ticket, cause: str) -> None:
        camera = ticket.frame.camera
        self._stats.drop(camera, "superseded", ticket.skipped)
        self._stats.drop(camera, cause)
        self._sequencer.complete(ticket, None)


def _times(ticket: Ticket, pre_ns: int, infer_ns: int, post_ns: int, ended_ns: int) -> StageTimes:
    """Stage times of one frame; `queue` is whatever time no stage worked on it."""
    total = ended_ns - ticket.frame.monotonic_ns
    queue = max(0, total - pre_ns - infer_ns - post_ns)
    return StageTimes(
        queue_ms=queue / NS_PER_MS,
        pre_ms=pre_ns / NS_PER_MS,
        infer_ms=infer_ns / NS_PER_MS,
        post_ms=post_ns / NS_PER_MS,
        total_ms=total / NS_PER_MS,
    )
