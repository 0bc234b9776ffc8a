"""What `agent.modelslot` and `agent.builder` need around them, decided by a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from agent.buildprocess import Built
from agent.config import ModelConfig
from agent.pipeline.worker import LoadedModel
from agent.plans import PlanRequest
from engines.backend import Progress
from engines.errors import EngineError
from engines.plan import Plan
from tests.fakes.model import loaded

REPORT = {
    "chosen": {"backend": "fake", "precision": "int8", "route": "q/dq", "speedup": 2.0},
    "rows": [],
    "spent_s": 3.0,
}


def request(slot: str = "main", **tensorrt: float) -> PlanRequest:
    config = ModelConfig.model_validate({"path": "m.onnx", "tensorrt": tensorrt})
    return PlanRequest(slot, config, True, Path("cache"))


def plan(precision: str = "int8", size: int = 1000, key: str = "ab") -> Plan:
    return Plan(key, b"x" * size, {"backend": "fake", "precision": precision, "report": REPORT})


class FakeEngines:
    """Implements `agent.slotports.Engines`; the reference is "fp32" on "fake"."""

    reference = ("fake", "fp32")
    size = 1000

    def __init__(
        self, built: Plan | None = None, *, wanted: bool = True, digest: str = "sha256:00"
    ) -> None:
        self.digest = digest
        self.built = built
        self.is_wanted = wanted
        self.refuses: EngineError | None = None
        self.loads: list[str] = []

    def load_ready(self) -> LoadedModel:
        if self.built is None or self.refuses is not None:
            return self.load_reference()
        return self.load(self.built)

    def load_reference(self) -> LoadedModel:
        return self._load("fp32")

    def wanted(self) -> bool:
        return self.is_wanted

    def find(self) -> Plan | None:
        return self.built

    def load(self, plan: Plan) -> LoadedModel:
        if self.refuses is not None:
            raise self.refuses
        return self._load(str(plan.sidecar["precision"]))

    def _load(self, precision: str) -> LoadedModel:
        self.loads.append(precision)
        model = loaded(precision=precision)
        return replace(model, ref=replace(model.ref, digest=self.digest))


class FakePipelines:
    """Implements `agent.slotports.Pipelines`: what is handed over serves, or is refused."""

    def __init__(self) -> None:
        self.serving: dict[str, LoadedModel] = {}
        self.refuses: EngineError | None = None
        self.before_done: Callable[[], object] = lambda: None
        self.replaced = 0

    def model(self, slot: str) -> LoadedModel | None:
        return self.serving.get(slot)

    def swap(self, slot: str, model: LoadedModel) -> Future[None]:
        done: Future[None] = Future()
        if self.refuses is not None:
            model.engine.close()
            done.set_exception(self.refuses)
            return done
        self.serving[slot] = model
        self.before_done()
        done.set_result(None)
        return done

    def replace(self, slot: str, load: Callable[[], LoadedModel]) -> Future[None]:
        self.replaced += 1
        self.serving.pop(slot, None)
        done: Future[None] = Future()
        try:
            self.serving[slot] = load()
            done.set_result(None)
        except EngineError as error:
            done.set_exception(error)
        return done


class FakeBuild:
    """Implements `agent.slotports.Run`: tells progress, then puts a plan into the engines."""

    def __init__(self, engines: FakeEngines, made: Plan | EngineError | None = None) -> None:
        self._engines = engines
        self._made = made or plan()
        self.progress: list[Progress] = []
        self.requests: list[Mapping[str, object]] = []
        self.timeout_s = 0.0
        self.entered = threading.Event()

    def __call__(
        self,
        request: Mapping[str, object],
        timeout_s: float,
        tell: Callable[[Progress], None],
    ) -> Built:
        self.requests.append(request)
        self.timeout_s = timeout_s
        self.entered.set()
        for progress in self.progress:
            tell(progress)
        if isinstance(self._made, EngineError):
            raise self._made
        self._engines.built = self._made
        return Built(self._made.hex, REPORT)
