"""Proves candidates on this device: builds, judges, shadows, tries, switches and switches back.

Everything that runs a candidate for the first time does so in a process of its own. The agent loads
its engine for the canary only, when it has answered the golden set and live frames elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from agent.buildprocess import COMMAND, BuildProcess
from agent.buildsummary import summary
from agent.errors import AgentError, GateError
from agent.modelslot import BUILD_PARTS
from agent.update.canary import STALL_S, hopeless, judge_canary
from agent.update.ports import Finding
from agent.update.proofcall import Call
from agent.update.proofhealth import Stall, Watch, resident_mb
from agent.update.trial import golden_of, request_of, truth_of
from agent.update.trialframes import Dose, Feeding
from agent.update.trialgate import GateRequest
from agent.update.verdict import judge_gate, judge_shadow
from engines.backend import Progress
from engines.errors import BuildError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.builder import Builder
    from agent.modelslot import ModelSlot
    from agent.pipeline.pipeline import Pipeline
    from agent.plans import PlanRequest
    from agent.update.canary import Health
    from agent.update.memoryfolder import MemoryFolder
    from agent.update.ports import Candidate

TRIAL = (sys.executable, "-m", "agent.update.trialchild")

GATE_TIMEOUT_S = 1800.0
"""The golden set, on a slow device that is busy with its cameras."""

TRIAL_START_S = 300.0
"""Time for a trial's process to load what it needs, beside what its frames take."""

GATE_FRAMES = Dose(seconds=4.0, period_s=0.4, most=8, most_bytes=64 * 2**20)
"""Live frames that the gate shows to both models, if there are any."""

SHADOW_PERIOD_S = 0.5
SHADOW_LEAST = 4
SHADOW_PATIENCE_S = 20.0
"""One frame so often; if there were fewer than `SHADOW_LEAST`, so much longer for them."""

BEFORE_S = 30.0
"""What serves is watched before a trial, as long as the trial lasts but not longer than this."""

NO_CAMERA = "no camera uses this slot: there is nothing to see"


class PipelineProofs:
    """Implements `agent.update.ports.Proofs` on a running pipeline.

    Args:
        pipeline: where candidates take over.
        slots: its model slots, by name.
        builder: builds in the background; it is held while something is proven.
        memory: where plaintext may lie; temporary files of the processes go there too.
        build_command: the program that builds.
        trial_command: the program that runs candidates.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        slots: Mapping[str, ModelSlot],
        builder: Builder,
        memory: MemoryFolder,
        *,
        build_command: Sequence[str] = COMMAND,
        trial_command: Sequence[str] = TRIAL,
    ) -> None:
        self._pipeline = pipeline
        self._slots = slots
        self._builder = builder
        self._memory = memory
        self._build_command = build_command
        self._trial_command = trial_command
        self._lock = threading.Lock()
        self._calls: set[Call] = set()

    def build(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        request = self._request(candidate)
        process = BuildProcess(
            request.to_json(),
            BUILD_PARTS * request.config.tensorrt.build_timeout_s,
            self._build_command,
            environment=self._environment(),
        )
        with self._call() as call:
            try:
                built = call.run(process, tell)
            except BuildError as error:
                return Finding(False, f"no engine could be built: {error}")
        return Finding(True, figures={"plan": built.plan, **summary(dict(built.value))})

    def gate(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        rules = candidate.rules.gate
        gate = GateRequest(
            self._request(candidate),
            self._slots[candidate.slot].request,
            golden_of(candidate),
            truth_of(candidate),
            rules.metric,
        )
        request = {"stage": "gate", "gate": gate.to_json()}
        measured = self._trial(candidate, request, GATE_FRAMES, GATE_TIMEOUT_S, tell)
        return measured if isinstance(measured, Finding) else judge_gate(measured, rules)

    def shadow(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        rules = candidate.rules.shadow
        active = self._pipeline.model(candidate.slot)
        if not rules.seconds or active is None:
            note = "not asked for" if active is not None else NO_CAMERA
            return Finding(True, figures={"frames": 0, "note": note})
        request = {
            "stage": "shadow",
            "candidate": self._request(candidate).to_json(),
            "names": list(active.ref.names),
        }
        dose = Dose(rules.seconds, SHADOW_PERIOD_S, SHADOW_LEAST, SHADOW_PATIENCE_S)
        timeout_s = rules.seconds + SHADOW_PATIENCE_S + TRIAL_START_S
        began = time.monotonic()

        def timed(progress: Progress) -> None:
            passed_s = min(time.monotonic() - began, rules.seconds)
            tell(Progress(progress.step, int(passed_s), int(rules.seconds)))

        measured = self._trial(candidate, request, dose, timeout_s, timed)
        return measured if isinstance(measured, Finding) else judge_shadow(measured, rules)

    def canary(self, candidate: Candidate, tell: Callable[[Progress], None]) -> Finding:
        """See `agent.update.ports.Proofs`."""
        slot, rules = self._slots[candidate.slot], candidate.rules.canary
        runner = self._pipeline.runners.get(candidate.slot)
        if runner is None:
            return Finding(True, figures={"note": NO_CAMERA})
        watch = Watch(self._pipeline, candidate.slot)
        with self._call() as call:
            tell(Progress("measuring what serves"))
            before = watch.look(min(rules.seconds, BEFORE_S), call.cancelled)
            call.check()
            before_mb = resident_mb()
            try:
                slot.try_out(self._request(candidate), self._pipeline)
            except (EngineError, AgentError) as error:
                return Finding(False, f"it cannot take over: {error}")
            stall = Stall(lambda: self._pipeline.waiting(candidate.slot), STALL_S)
            hangs = False

            def ends(health: Health) -> bool:
                nonlocal hangs
                tell(Progress("on trial", int(health.seconds), int(rules.seconds)))
                hangs = stall(health)
                return hangs or hopeless(health, rules) or not slot.on_trial

            during = watch.look(rules.seconds, call.cancelled, ends)
            call.check()
            broken = ""
            said = runner.reason or ""
            if not slot.on_trial:
                said = runner.broken_by or ""
                broken = "its engine failed for good; the one before serves"
            elif hangs:
                broken = f"it has given nothing for {STALL_S:g} s while frames waited"
            seen = watch.both(before, during)
            growth_mb = resident_mb() - before_mb
            return judge_canary(*seen, growth_mb, rules, broken=broken, said=said)

    def commit(self, candidate: Candidate) -> None:
        """See `agent.update.ports.Proofs`."""
        self._settle(candidate.slot, self._request(candidate))

    def revert(self, slot: str, previous: Candidate | None) -> None:
        """See `agent.update.ports.Proofs`."""
        own = self._slots[slot].configured if previous is None else self._request(previous)
        self._settle(slot, own)

    def install(self, candidate: Candidate) -> None:
        """Make a committed candidate its slot's own, at the start, before anything is loaded."""
        self._slots[candidate.slot].assign(self._request(candidate))

    def cancel(self) -> None:
        """See `agent.update.ports.Proofs`; a call that begins later is not touched."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def _settle(self, slot: str, request: PlanRequest) -> None:
        """Make a model a slot's own, and have it serve if it does not."""
        try:
            with self._builder.held():
                self._slots[slot].restore(request, self._pipeline)
        except (EngineError, AgentError) as error:
            raise GateError(f"model {slot}: {error}") from error
        finally:
            # Whether its engine could be bettered, and what is told of that, is another question.
            self._builder.again(slot)

    def _trial(
        self,
        candidate: Candidate,
        request: Mapping[str, object],
        dose: Dose,
        timeout_s: float,
        tell: Callable[[Progress], None],
    ) -> Mapping[str, object] | Finding:
        """What a trial's process has measured, or that it failed."""
        runner = self._pipeline.runners.get(candidate.slot)
        with self._call() as call, Feeding(None if runner is None else runner.tap, dose) as feeding:
            process = BuildProcess(
                {**request, "frames": feeding.reading},
                timeout_s,
                self._trial_command,
                what="trial",
                environment=self._environment(),
                inherited=(feeding.reading,),
            )
            try:
                return call.run(process, tell).value
            except BuildError as error:
                return Finding(False, f"it failed when it was run: {error}")

    def _request(self, candidate: Candidate) -> PlanRequest:
        return request_of(self._slots[candidate.slot].configured, candidate)

    def _environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self._memory.work)}

    @contextlib.contextmanager
    def _call(self) -> Iterator[Call]:
        call = Call()
        with self._lock:
            self._calls.add(call)
        try:
            with self._builder.held():
                yield call
        except BuildError as error:
            raise GateError(str(error)) from error
        finally:
            with self._lock:
                self._calls.discard(call)
