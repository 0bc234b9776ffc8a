"""What the doctor examines: a model with its settings, pictures, the engine that would serve."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.doctor_answers import LOWEST, AnswerFacts
from agent.doctor_plain import plain_input
from agent.enginepictures import drawn, fill
from agent.models import load_ready
from agent.modelsettings import postprocess_settings
from agent.plans import Plans
from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.preprocess import Preprocessor, place
from engines.model import Resize
from engines.onnxfile import read_model
from engines.orttensors import PlainModel, feed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from agent.pipeline.worker import LoadedModel
    from agent.plans import PlanRequest
    from engines.base import Context
    from engines.model import ModelInfo
    from engines.onnxfile import ModelFile

TIMED_S = 1.0
"""Time spent on each measurement of speed."""

TIMED_LEAST = 5
WARM_UP = 3
MS_PER_S = 1e3


class Case:
    """Reads, loads and runs what the checks need, each once and only if it is needed.

    Args:
        request: the model slot.
        pictures: BGR, uint8, [h, w, 3]; empty if none were given.

    Attributes:
        given: whether pictures were given; else drawn ones stand in for them.

    Raises:
        EngineError: the model file cannot be used.
        ConfigError: settings that do not fit it.
    """

    def __init__(self, request: PlanRequest, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.plans = Plans(request)
        self.config = request.config
        self.info: ModelInfo = self.plans.info
        self.given = bool(pictures)
        self.pictures = list(pictures) or [drawn()]
        self._loaded: LoadedModel | None = None
        self._context: Context | None = None

    @functools.cached_property
    def file(self) -> ModelFile:
        """The model file."""
        return read_model(self.config.path)

    @functools.cached_property
    def settings(self) -> PostprocessSettings:
        """Thresholds as configured."""
        return postprocess_settings(self.plans.request.slot, self.config, self.info)

    @functools.cached_property
    def decoder(self) -> Decoder:
        """Decodes at the configured thresholds."""
        return Decoder(self.info, self.settings)

    @functools.cached_property
    def plain(self) -> PlainModel:
        """The file as other programs run it."""
        return PlainModel(self.file.model, threads=self.plans.options.run.threads)

    def run_plain(self, image: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        """Run the file itself: the model's own input, [1, 3, H, W].

        Raises:
            EngineError: it cannot be run.
        """
        return self.plain.run(feed(self.file.model, self.info.input.name, image))

    @property
    def loaded(self) -> LoadedModel:
        """The engine that would serve now.

        Raises:
            EngineError: there is none.
        """
        if self._loaded is None:
            self._loaded = load_ready(self.plans)
        return self._loaded

    @functools.cached_property
    def prepared(self) -> list[NDArray[np.uint8]]:
        """The pictures as the engine takes them: BGR, uint8, [height, width, 3]."""
        info = self.info
        preprocessor = Preprocessor(info.resize, info.width, info.height)
        found = []
        for picture in self.pictures:
            out = np.empty((info.height, info.width, 3), np.uint8)
            preprocessor.write(picture, out)
            found.append(out)
        return found

    def serve(self, prepared: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Run the engine on a prepared picture; copies of its outputs.

        Raises:
            EngineError: it cannot be run.
        """
        context = self._own_context()
        self._write(context, prepared)
        return {name: np.array(value[:1]) for name, value in context.infer().items()}

    def same_input(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the file's own model takes for a prepared picture, without another rounding."""
        return plain_input(prepared, replace(self.info, resize=Resize.STRETCH))

    def close(self) -> None:
        """Unload."""
        if self._context is not None:
            self._context.close()
            self._context = None
        if self._loaded is not None:
            self._loaded.engine.close()
            self._loaded = None

    def answers(self) -> AnswerFacts:
        """What the engine answers to the pictures, at the configured thresholds and at the lowest.

        Raises:
            EngineError: it cannot be run.
            OutputError: its outputs cannot be decoded.
        """
        most = self.settings.max_detections
        lowest = PostprocessSettings(confidence=LOWEST, iou=self.settings.iou, max_detections=most)
        low = Decoder(self.info, lowest)
        best, counts, low_counts, decode_ms = [], [], [], []
        for picture, prepared in zip(self.pictures, self.prepared, strict=True):
            outputs = self.serve(prepared)
            height, width = picture.shape[:2]
            where = place(width, height, self.info.width, self.info.height, self.info.resize)
            began = time.perf_counter()
            counts.append(len(self.decoder(outputs, 0, where)))
            decode_ms.append((time.perf_counter() - began) * MS_PER_S)
            found = low(outputs, 0, where)
            low_counts.append(len(found))
            best.append(float(found.scores.max(initial=0.0)))
        infer_ms, _ = self.timed(self.prepared[0])
        return AnswerFacts(
            tuple(best),
            tuple(counts),
            tuple(low_counts),
            statistics.median(decode_ms),
            statistics.median(infer_ms),
        )

    def timed(
        self, prepared: NDArray[np.uint8], other: NDArray[np.uint8] | None = None
    ) -> tuple[list[float], list[float]]:
        """Time inferences on one prepared picture, or on two in turn.

        Returns:
            Milliseconds for the first, and for the second.

        Raises:
            EngineError: the engine cannot be run.
        """
        context = self._own_context()
        samples: tuple[list[float], list[float]] = ([], [])
        chosen = [prepared] if other is None else [prepared, other]
        for _ in range(WARM_UP):
            context.infer()
        began = time.perf_counter()
        while len(samples[0]) < TIMED_LEAST or time.perf_counter() - began < TIMED_S:
            for pixels, kept in zip(chosen, samples):  # noqa: B905 - one or two
                self._write(context, pixels)
                start = time.perf_counter()
                context.infer()
                kept.append((time.perf_counter() - start) * MS_PER_S)
        return samples

    @property
    def batch(self) -> int:
        """Pictures of one inference."""
        return self.info.max_batch or 1

    def _write(self, context: Context, prepared: NDArray[np.uint8]) -> None:
        """Fill the whole batch with a picture that has the input's size already."""
        same = Preprocessor(Resize.STRETCH, self.info.width, self.info.height)
        for index in range(self.batch):
            fill(context, index, prepared, same)

    def _own_context(self) -> Context:
        if self._context is None:
            self._context = self.loaded.engine.create_context(self.batch)
        return self._context
