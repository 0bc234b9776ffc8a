"""One model slot: what serves it now, and how a better engine comes to serve it.

The slot serves at once with the engine that is ready. Where another could be built, that happens
elsewhere (`agent.builder`); then it is loaded, warmed up and swapped in, and everything on the way
is told. Whatever fails leaves what served before serving. A build that failed is not tried again in
this run of the agent, and an engine that broke soon after it took over is not trusted again.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from agent.buildsummary import summary
from agent.device import memory_available
from agent.errors import AgentError
from agent.wire.buildstate import BuildState
from engines.errors import BuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.buildprocess import Built
    from agent.pipeline.worker import LoadedModel
    from agent.plans import PlanRequest
    from engines.backend import Progress
    from engines.plan import Plan

log = logging.getLogger(__name__)

BUILD_PARTS = 4
"""A build of all candidates may take so many times what TensorRT's build of one may take."""

PROBATION_S = 60.0
"""An engine that fails for good within this time of taking over is not loaded again."""

TAKE_OVER_S = 60.0
"""An old engine that has not ended after this hangs; longer than any inference."""

BESIDE_FACTOR = 3
"""Memory that an engine takes at the most, as a multiple of its plan: weights, packed weights, and
what the runtime needs while it loads them."""

BESIDE_BYTES = 64 * 2**20
"""Memory that it takes whatever its plan: activations, buffers of its contexts."""

STOPPED = "the agent was stopped before the engine was built"

TELL_EVERY_S = 1.0
"""Progress within a step is told no more often."""


class Pipelines(Protocol):
    """What a slot needs of `agent.pipeline.pipeline.Pipeline`."""

    def swap(self, slot: str, model: LoadedModel) -> concurrent.futures.Future[None]:
        """Have a loaded model take over."""

    def replace(
        self, slot: str, load: Callable[[], LoadedModel]
    ) -> concurrent.futures.Future[None]:
        """Close the model that serves, then load one."""


class Engines(Protocol):
    """The engines of a slot: what is ready, what was built."""

    @property
    def reference(self) -> tuple[str, str]:
        """Backend and precision of the engine that needs no building."""

    def load_ready(self) -> LoadedModel:
        """Load the built engine, or the reference where there is none."""

    def load_reference(self) -> LoadedModel:
        """Load the reference."""

    def wanted(self) -> bool:
        """Whether a build could choose anything but the reference."""

    def find(self) -> Plan | None:
        """What was built for exactly this slot."""

    def load(self, plan: Plan) -> LoadedModel:
        """Load what was built."""


class Run(Protocol):
    """Runs a build."""

    def __call__(
        self,
        request: Mapping[str, object],
        timeout_s: float,
        tell: Callable[[Progress], None],
    ) -> Built:
        """Run it to its end; raises BuildError."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """An engine that serves, or is about to.

    Attributes:
        name: backend and precision.
        built_since: since when, monotonic seconds, if it was built; None for the reference.
    """

    name: tuple[str, str]
    built_since: float | None


class ModelSlot:
    """See the module.

    Args:
        request: which slot, with which settings.
        engines: opens the engines of a request; raises EngineError or ConfigError.
        changed: called, from any thread, when `state` has changed.
        available: memory that can be had, bytes.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        request: PlanRequest,
        engines: Callable[[PlanRequest], Engines],
        changed: Callable[[], None],
        *,
        available: Callable[[], int] = memory_available,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._request = request
        self._slot = request.slot
        self._changed = changed
        self._open = engines
        self._available = available
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._state: BuildState | None = None
        self._told_s = 0.0
        self._serving: _Serving | None = None
        self._distrusted = False
        self._stopping = False

    @property
    def state(self) -> BuildState | None:
        """How the building of the slot's engine goes; None while nothing is known of it."""
        return self._state

    def load(self) -> LoadedModel:
        """Load what is to serve: at the start, and after what served has failed for good.

        Raises:
            EngineError: nothing can be loaded.
            ConfigError: settings that do not fit the model.
        """
        self._look_back()
        engines = self._open(self._request)
        model = engines.load_reference() if self._distrusted else engines.load_ready()
        self._serves(model, engines)
        return model

    def improve(self, pipelines: Pipelines, run: Run) -> None:
        """Find or build the engine that serves best, and have it take over.

        Raises nothing for what goes wrong with that; it is told in `state`.

        Args:
            pipelines: where engines take over.
            run: runs a build.
        """
        try:
            self._improve(pipelines, run)
        except (EngineError, AgentError) as error:
            if self._stopping:
                self._tell(BuildState("none", reason=STOPPED))
            else:
                self._fail(str(error))
        except Exception as error:
            # A mistake of ours here must not end what serves; it is told like any other failure.
            log.exception("model %s: building its engine failed", self._slot)
            self._fail(f"internal error: {error!r}")

    def stop(self) -> None:
        """What fails from now on does so because the agent stops."""
        self._stopping = True

    def _improve(self, pipelines: Pipelines, run: Run) -> None:
        engines = self._open(self._request)
        if not engines.wanted():
            self._tell(BuildState("none"))
            return
        plan = engines.find()
        if plan is None:
            self._tell(BuildState("building", step="starting", started=self._wall()))
            timeout_s = BUILD_PARTS * self._request.config.tensorrt.build_timeout_s
            built = run(self._request.to_json(), timeout_s, self._progress)
            plan = engines.find()
            if plan is None or plan.hex != built.plan:
                raise BuildError(
                    "the engine was built, but for another model, other pictures or other "
                    "settings than there are now, or it cannot be read back; restart the agent"
                )
        self._adopt(engines, plan, pipelines)

    def _adopt(self, engines: Engines, plan: Plan, pipelines: Pipelines) -> None:
        chosen = (str(plan.sidecar.get("backend")), str(plan.sidecar.get("precision")))
        report: Any = plan.sidecar.get("report")
        note = ""
        with self._lock:
            before = self._state or BuildState()
            state = replace(
                before,
                state="building",
                step="loading",
                done=0,
                total=0,
                candidate=chosen,
                report=summary(report if isinstance(report, dict) else {}),
            )
            serves = self._serving is not None and self._serving.name == chosen
            refused = self._distrusted
        if refused:
            return
        if not serves:
            self._tell(state)
            note = self._take_over(engines, plan, pipelines)
        ended = None if state.started is None else self._wall()
        with self._lock:
            if self._distrusted:
                # It took over and broke before it could be said that it serves.
                return
            self._state = replace(
                state, state="ready", step="", candidate=None, reason=note, ended=ended
            )
        self._changed()

    def _take_over(self, engines: Engines, plan: Plan, pipelines: Pipelines) -> str:
        """Load the engine and swap it in; returns what must be known of how it went."""
        needed = BESIDE_FACTOR * len(plan.blob) + BESIDE_BYTES
        free = self._available()

        if free >= needed:
            note = ""
            model = engines.load(plan)
            before = self._serves(model, engines)
            taken_over = pipelines.swap(self._slot, model)
        else:
            note = (
                f"memory for two engines was short ({free >> 20} of {needed >> 20} MB): the one "
                "that served was closed before this one was loaded"
            )
            log.warning("model %s: %s", self._slot, note)
            before = None
            taken_over = pipelines.replace(self._slot, lambda: self._load(engines, plan))
        try:
            taken_over.result(TAKE_OVER_S)
        except concurrent.futures.TimeoutError:
            raise BuildError(
                f"the engine that served did not end within {TAKE_OVER_S:g} s; restart the agent"
            ) from None
        except EngineError:
            if before is not None:
                self._serving = before
            raise
        return note

    def _load(self, engines: Engines, plan: Plan) -> LoadedModel:
        model = engines.load(plan)
        self._serves(model, engines)
        return model

    def _serves(self, model: LoadedModel, engines: Engines) -> _Serving | None:
        """Note what serves from now on; returns what did before."""
        name = (model.ref.backend, model.ref.precision)
        since = None if name == engines.reference else self._clock()
        before, self._serving = self._serving, _Serving(name, since)
        return before

    def _look_back(self) -> None:
        """Loading again means that what served has failed; was it built, and did it fail soon?"""
        serving = self._serving
        if serving is None or serving.built_since is None:
            return
        if self._clock() - serving.built_since > PROBATION_S:
            return
        backend, precision = serving.name
        with self._lock:
            self._distrusted = True
        self._fail(
            f"the {precision} engine on {backend} failed within {PROBATION_S:g} s of taking over; "
            "FP32 on ONNX Runtime serves until the agent is restarted"
        )

    def _progress(self, progress: Progress) -> None:
        with self._lock:
            before = self._state or BuildState()
            self._state = replace(
                before, step=progress.step, done=progress.done, total=progress.total
            )
            now = self._clock()
            due = progress.step != before.step or now - self._told_s >= TELL_EVERY_S
            if due:
                self._told_s = now
        if due:
            self._changed()

    def _tell(self, state: BuildState) -> None:
        with self._lock:
            self._state = state
        self._changed()

    def _fail(self, reason: str) -> None:
        log.error("model %s: %s", self._slot, reason)
        with self._lock:
            before = self._state or BuildState()
            self._state = BuildState(
                "failed",
                reason=reason,
                started=before.started,
                ended=self._wall(),
                report=before.report,
            )
        self._changed()
