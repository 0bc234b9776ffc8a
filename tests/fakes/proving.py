"""A running pipeline on the sample video, and bundles that are to take it over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from agent.builder import Builder
from agent.bundle.manifest import CanaryRules, GateRules, ShadowRules
from agent.bundle.open import open_bundle
from agent.config import ModelConfig
from agent.frame import Frame
from agent.modelslot import ModelSlot
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.plans import PlanRequest
from agent.slotengines import PlannedEngines
from agent.update.memoryfolder import MemoryFolder
from agent.update.ports import Candidate, Rules
from agent.update.proofs import PipelineProofs
from engines.backend import Progress
from tests.fakes.sink import ListSink
from tests.vectors import conveyors
from tests.vectors.bundles import CONVEYOR, make_bundle, read_bundle

SOON_S = 60.0

FAST = {"backend": "onnxruntime", "precision": "fp32", "threads": 1, "confidence": 0.4}
"""Settings whose builds have nothing to choose, so they take seconds."""


class SampleFeed:
    """A live camera that shows some frames of the sample video over and over."""

    live = True

    def __init__(self, fps: float = 12.0, frames: int = 40) -> None:
        self.away = threading.Event()
        self._period_s = 1 / fps
        capture = cv2.VideoCapture(str(conveyors.SAMPLE))
        self._pictures = [capture.read()[1] for _ in range(frames)]
        capture.release()

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        index = 0
        while not stop.wait(self._period_s):
            if self.away.is_set():
                continue
            pixels = self._pictures[index % len(self._pictures)]
            deliver(Frame(pixels, "belt", index, time.monotonic_ns(), time.time()))
            index += 1


class Proving:
    """A pipeline of one slot that serves conveyor-n, and everything that proves candidates.

    Args:
        folder: for the plan cache and sealed bundles.
        feed: the camera; None for the sample video.
        **proofs: arguments of `PipelineProofs`.
    """

    def __init__(
        self, folder: Path, feed: SampleFeed | None = None, cache: Path | None = None, **proofs
    ) -> None:
        self.folder = folder
        self.feed = feed or SampleFeed()
        self.memory = MemoryFolder()
        self.sink = ListSink()
        config = ModelConfig.model_validate({"path": CONVEYOR, **FAST})
        request = PlanRequest("main", config, live=True, cache_dir=cache or folder / "cache")
        self.slot = ModelSlot(request, PlannedEngines, lambda: None)
        self.pipeline = Pipeline(
            cameras={"belt": CameraPlan(self.feed, "main")},
            models={"main": self.slot.load},
            sink=self.sink,
            queue_frames=2,
        )
        slots = {"main": self.slot}
        self.builder = Builder(slots, self.pipeline)
        self.proofs = PipelineProofs(self.pipeline, slots, self.builder, self.memory, **proofs)
        self.told: list[Progress] = []

    def __enter__(self) -> Proving:  # noqa: PYI034 - Self is not in Python 3.10
        self.pipeline.load()
        self.pipeline.start()
        self.builder.start()
        self.sink.wait_for(3, SOON_S)
        return self

    def __exit__(self, *_error: object) -> None:
        self.builder.cancel()
        self.pipeline.stop()
        assert self.pipeline.wait(SOON_S)
        self.pipeline.close()
        assert self.builder.close(SOON_S)
        self.memory.close()

    @property
    def digest(self) -> str:
        """Of the model that serves."""
        model = self.pipeline.model("main")
        assert model is not None
        return model.ref.digest

    def candidate(
        self,
        model: bytes,
        files: dict[str, bytes] | None = None,
        *,
        version: str = "2.0.0",
        gate: GateRules | None = None,
        shadow: ShadowRules | None = None,
        canary: CanaryRules | None = None,
    ) -> Candidate:
        """A bundle that was packed, sealed and opened."""
        place = self.folder / f"bundle-{version}"
        packed = make_bundle(place, {"model.onnx": model, **(files or {})}, version=version)
        opened = read_bundle(place)
        folder = self.memory.make(packed.digest, opened.manifest.plaintext_bytes)
        open_bundle(
            opened.manifest,
            opened.index,
            opened.payload,
            packed.data_key,
            folder,
            lambda _done, _total: None,
        )
        rules = Rules(
            gate or GateRules(),
            shadow or ShadowRules(seconds=2.0),
            canary or CanaryRules(seconds=2.0),
        )
        return Candidate("main", packed.digest, opened.manifest, folder, rules)

    def stages(self, candidate: Candidate, *names: str) -> list:
        """What some stages, in their order, have found; ends with the first that failed."""
        findings = []
        for name in names:
            stage = getattr(self.proofs, name)
            findings.append(stage(candidate, self.told.append))
            if not findings[-1].passed:
                break
        return findings

    def built(self, candidate: Candidate) -> Candidate:
        """After it was built."""
        (finding,) = self.stages(candidate, "build")
        assert finding.passed, finding.reason
        return candidate
