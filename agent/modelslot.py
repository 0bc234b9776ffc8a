"""One model slot: what serves it now, and how a better engine or another model comes to serve it.

The slot serves at once with the engine that is ready. Where another could be built, that happens
elsewhere (`agent.builder`); then it is loaded, warmed up and swapped in, and everything on the way
is told. Whatever fails leaves what served before serving. A build that failed is not tried again in
this run of the agent, and an engine that broke soon after it took over is not trusted again.

An update has another model serve on trial first. While it does, the slot's own model is still the
one before: it is what is loaded if the candidate's engine fails for good.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.buildsummary import summary
from agent.device import memory_available
from agent.errors import AgentError
from agent.slotnews import BuildNews
from agent.slotswitch import TAKE_OVER_S, HangsError, take_over
from agent.wire.buildstate import BuildState
from engines.errors import BuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.pipeline.worker import LoadedModel
    from agent.plans import PlanRequest
    from agent.slotports import Engines, Pipelines, Run
    from engines.plan import Plan

log = logging.getLogger(__name__)

BUILD_PARTS = 4
"""A build of all candidates may take so many times what TensorRT's build of one may take."""

PROBATION_S = 60.0
"""An engine that fails for good within this time of taking over is not loaded again."""

STOPPED = "the agent was stopped before the engine was built"
POSTPONED = "an update comes first; the engine is built after it"


class PostponedError(BuildError):
    """A build was broken off for something that comes first; it is to be begun again later."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """An engine that serves, or is about to.

    Attributes:
        request: whose engine it is.
        name: backend and precision.
        built_since: since when, monotonic seconds, if it was built; None for the reference.
    """

    request: PlanRequest
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

    Attributes:
        configured: the request of the configuration, which updates leave as it is.
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
        self.configured = request
        self._request = request
        self._slot = request.slot
        self._open = engines
        self._available = available
        self._clock = clock
        self._wall = wall
        self._news = BuildNews(request.slot, changed, clock, wall)
        # Guards what follows.
        self._lock = threading.Lock()
        self._serving: _Serving | None = None
        self._distrusted = False
        self._trial: PlanRequest | None = None
        self._stopping = False

    @property
    def state(self) -> BuildState | None:
        """How the building of the slot's engine goes; None while nothing is known of it."""
        return self._news.state

    @property
    def request(self) -> PlanRequest:
        """The slot's own model: configured, or committed by an update."""
        return self._request

    @property
    def on_trial(self) -> bool:
        """Whether a candidate serves on trial; False once its engine has failed for good."""
        return self._trial is not None

    @property
    def trial(self) -> PlanRequest | None:
        """What serves on trial, if anything does."""
        return self._trial

    def load(self) -> LoadedModel:
        """Load what is to serve: at the start, and after what served has failed for good.

        Raises:
            EngineError: nothing can be loaded.
            ConfigError: settings that do not fit the model.
        """
        with self._lock:
            tried, self._trial = self._trial, None
        if tried is None:
            self._look_back()
        else:
            log.error("model %s: the candidate failed; the model before it serves", self._slot)
        engines = self._open(self._request)
        model = engines.load_reference() if self._distrusted else engines.load_ready()
        self._serves(self._request, model, engines)
        return model

    def assign(self, request: PlanRequest) -> None:
        """Make a model the slot's own, from the next load on; a trial of it has ended well."""
        with self._lock:
            news = request != self._request
            self._request = request
            self._trial = None
            if news:
                self._distrusted = False
        if news:
            self._news.tell(None)

    def try_out(self, request: PlanRequest, pipelines: Pipelines) -> None:
        """Have the built engine of another model take over, on trial.

        Raises:
            EngineError: it was not built, or cannot take over; what served before serves.
            ConfigError: settings that do not fit the model.
        """
        engines = self._open(request)
        plan = engines.find()
        if plan is None:
            raise BuildError("the engine that was built is not in the plan cache any more")
        with self._lock:
            self._trial = request
        try:
            self._take_over(request, engines, len(plan.blob), lambda: engines.load(plan), pipelines)
        except (EngineError, AgentError):
            with self._lock:
                self._trial = None
            raise

    def restore(self, request: PlanRequest, pipelines: Pipelines) -> None:
        """Make a model the slot's own and have it serve, if it does not.

        Raises:
            EngineError: it cannot be loaded at once; it is tried again, and nothing else serves.
            ConfigError: settings that do not fit it; what serves, serves on.
        """
        self.assign(request)
        engines, serving = self._open(request), pipelines.model(self._slot)
        if serving is None or (
            # What was noted last need not be what came last.
            self._serving is not None
            and self._serving.request == request
            and serving.ref.digest == engines.digest
        ):
            return
        try:
            self._take_over(request, engines, engines.size, engines.load_ready, pipelines)
        except HangsError:
            raise
        except EngineError as error:
            # What is to go must go: without it, the slot's own way to load is tried for ever.
            log.warning("model %s: %s; the other is closed first", self._slot, error)
            pipelines.replace(self._slot, self.load).result(TAKE_OVER_S)

    def improve(self, pipelines: Pipelines, run: Run) -> bool:
        """Find or build the engine that serves best, and have it take over.

        Raises nothing for what goes wrong with that; it is told in `state`.

        Args:
            pipelines: where engines take over.
            run: runs a build.

        Returns:
            False if it was postponed and is to be done again later.
        """
        try:
            self._improve(self._request, pipelines, run)
        except PostponedError:
            self._news.tell(BuildState("none", reason=POSTPONED))
            return False
        except (EngineError, AgentError) as error:
            if self._stopping:
                self._news.tell(BuildState("none", reason=STOPPED))
            else:
                self._news.fail(str(error))
        except Exception as error:
            # A mistake of ours here must not end what serves; it is told like any other failure.
            log.exception("model %s: building its engine failed", self._slot)
            self._news.fail(f"internal error: {error!r}")
        return True

    def stop(self) -> None:
        """What fails from now on does so because the agent stops."""
        self._stopping = True

    def _improve(self, request: PlanRequest, pipelines: Pipelines, run: Run) -> None:
        engines = self._open(request)
        if not engines.wanted():
            self._news.tell(BuildState("none"))
            return
        plan = engines.find()
        if plan is None:
            self._news.begin()
            timeout_s = BUILD_PARTS * request.config.tensorrt.build_timeout_s
            built = run(request.to_json(), timeout_s, self._news.progress)
            plan = engines.find()
            if plan is None or plan.hex != built.plan:
                raise BuildError(
                    "the engine was built, but for another model, other pictures or other "
                    "settings than there are now, or it cannot be read back; restart the agent"
                )
        self._adopt(request, engines, plan, pipelines)

    def _adopt(
        self, request: PlanRequest, engines: Engines, plan: Plan, pipelines: Pipelines
    ) -> None:
        chosen = (str(plan.sidecar.get("backend")), str(plan.sidecar.get("precision")))
        report: Any = plan.sidecar.get("report")
        state = replace(
            self._news.state or BuildState(),
            state="building",
            step="loading",
            done=0,
            total=0,
            candidate=chosen,
            report=summary(report if isinstance(report, dict) else {}),
        )
        note = ""
        with self._lock:
            serving = self._serving
            serves = serving is not None and (serving.request, serving.name) == (request, chosen)
            if self._distrusted:
                return
        if not serves:
            self._news.tell(state)
            note = self._take_over(
                request, engines, len(plan.blob), lambda: engines.load(plan), pipelines
            )
        ended = None if state.started is None else self._wall()
        if not self._distrusted:  # It can have taken over and broken meanwhile.
            self._news.tell(
                replace(state, state="ready", step="", candidate=None, reason=note, ended=ended)
            )

    def _take_over(
        self,
        request: PlanRequest,
        engines: Engines,
        size: int,
        load: Callable[[], LoadedModel],
        pipelines: Pipelines,
    ) -> str:
        """Load an engine and swap it in; returns what must be known of how it went."""
        before = self._serving
        noted: list[_Serving] = []

        def noting() -> LoadedModel:
            model = load()
            noted.append(self._serves(request, model, engines))
            return model

        available = self._available()
        try:
            return take_over(pipelines, self._slot, noting, size=size, available=available)
        except HangsError:
            raise
        except EngineError:
            with self._lock:
                if noted and self._serving is noted[0]:
                    self._serving = before
            raise

    def _serves(self, request: PlanRequest, model: LoadedModel, engines: Engines) -> _Serving:
        """Note what serves from now on."""
        name = (model.ref.backend, model.ref.precision)
        since = None if name == engines.reference else self._clock()
        self._serving = _Serving(request, name, since)
        return self._serving

    def _look_back(self) -> None:
        """Loading again means that what served has failed; was it built, and did it fail soon?"""
        serving = self._serving
        if serving is None or serving.built_since is None or serving.request != self._request:
            return
        if self._clock() - serving.built_since > PROBATION_S:
            return
        backend, precision = serving.name
        with self._lock:
            self._distrusted = True
        self._news.fail(
            f"the {precision} engine on {backend} failed within {PROBATION_S:g} s of taking over; "
            "FP32 on ONNX Runtime serves until the agent is restarted"
        )
