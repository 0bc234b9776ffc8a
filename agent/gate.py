"""Judges an engine: does it still answer what the reference answers, on pictures held out for this?

Two kinds of evidence. Tensors: each part of the outputs must point the same way as the reference's
(cosine). Task: a detector's objects must be found again with about the same boxes and scores, a
classifier's best class must be the same, and where ground truth is given, mAP must not fall. Scores
are a part of their own, so an engine whose scores are all 0 falls by both.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.answers import Answers
from agent.calibration import placed
from agent.errors import OutputError
from agent.gatelimits import is_quantised, limits, map_faults
from agent.gatetally import Tally, labelled
from agent.modelsettings import postprocess_settings
from agent.vision.metrics import Labelled, mean_average_precision
from engines.compare import OutputsDifferError, Verdict
from engines.errors import CalibrationError
from engines.model import Layout, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from agent.answers import Answer
    from agent.calibration import Picture
    from agent.config import ModelConfig
    from agent.gatelimits import Limits
    from agent.vision.decode import PostprocessSettings
    from engines.backend import Precision
    from engines.base import Engine
    from engines.images import Images
    from engines.model import ModelInfo

KEPT_BYTES = 128 * 2**20
"""Outputs of the reference that are kept at the most; others are computed for each judgement."""

LEAST_SCORE = 0.001
"""mAP counts detections of every score; precision at high scores is not hurt by low ones."""

MAP_DETECTIONS = 300
"""Objects of a picture that mAP counts at the least."""


class Gate:
    """Compares engines of one model with its reference.

    Args:
        info: the model.
        config: its slot's settings: thresholds, filters and limits.
        reference: FP32 on ONNX Runtime; not closed here, and must stay open.
        images: held-out pictures.
        truth: what is in them, in the same order, or None.

    Raises:
        CalibrationError: there are no pictures, or another number of truths.
        InferenceError: the reference fails.
        OutputError: the reference's outputs cannot be decoded.
    """

    def __init__(
        self,
        info: ModelInfo,
        config: ModelConfig,
        reference: Engine,
        images: Images,
        truth: Sequence[Labelled] | None = None,
    ) -> None:
        if truth is not None and len(truth) != len(images):
            raise CalibrationError(
                f"ground truth is given for {len(truth)} pictures, but there are {len(images)}"
            )
        self._info = info
        self._config = config
        self._wanted = postprocess_settings("main", config, info)
        self._thresholds = _thresholds(self._wanted, len(info.names))
        upright = info.layout is not Layout.CLASSES and info.task is not Task.OBB
        self._truth = truth if upright else None
        self._truth_unused = truth is not None and not upright
        self._settings = self._decoding()
        self._reference = reference
        self._images = images
        self._kept: list[Answer] = []
        self._reference_labels: list[Labelled] = []
        room = KEPT_BYTES
        with Answers(reference, info, self._settings) as answers:
            for picture in placed(images, info):
                answer = answers.of(picture)
                room -= sum(part.nbytes for part in answer.parts.values())
                if room >= 0:
                    self._kept.append(answer)
                self._reference_labels.append(labelled(answer.detections))
        if not self._reference_labels:
            raise CalibrationError("an engine cannot be judged without pictures")

    def judge(self, engine: Engine, precision: Precision) -> Verdict:
        """Compare an engine with the reference.

        Args:
            engine: of the same model.
            precision: decides the limits.

        Raises:
            InferenceError: the engine fails.
            CalibrationError: a picture cannot be read any more.
        """
        return self.compare(engine, self._info, self._images, precision)

    def compare(self, engine: Engine, info: ModelInfo, images: Images, precision: str) -> Verdict:
        """Compare an engine that may be of another model, or prepare its pictures differently.

        Args:
            engine: the candidate.
            info: its model.
            images: the same pictures, prepared for it.
            precision: decides the limits.

        Raises:
            InferenceError: the engine fails.
            CalibrationError: a picture cannot be read any more.
        """
        limit = limits(self._config.gate, precision)
        tally = Tally(self._info, self._thresholds, limit.max_score_drift)
        try:
            with Answers(engine, info, self._settings) as answers:
                own, others = placed(self._images, self._info), placed(images, info)
                for expected, picture in zip(self._expected(own), others, strict=True):
                    tally.add(expected, answers.of(picture))
        except OutputError as error:
            return Verdict(False, {"pictures": tally.pictures}, (str(error),))
        except OutputsDifferError as error:
            reason = f"{error}: it is an engine of another model"
            return Verdict(False, {"pictures": tally.pictures}, (reason,))
        return self._verdict(tally, limit, precision)

    def _expected(self, pictures: Iterator[Picture]) -> Iterator[Answer]:
        """The reference's answers: kept ones, then computed ones."""
        with ExitStack() as stack:
            answers: Answers | None = None
            for number, picture in enumerate(pictures):
                if number < len(self._kept):
                    yield self._kept[number]
                    continue
                if answers is None:
                    answers = Answers(self._reference, self._info, self._settings)
                    stack.enter_context(answers)
                yield answers.of(picture)

    def _decoding(self) -> PostprocessSettings:
        """Settings by which answers are decoded: everything that any figure may need."""
        least = float(self._thresholds.min()) - self._config.gate.max_score_drift
        if self._truth is not None:
            least = LEAST_SCORE
        return replace(
            self._wanted,
            confidence=max(LEAST_SCORE, least),
            class_confidence={},
            max_detections=max(MAP_DETECTIONS, self._wanted.max_detections),
        )

    def _verdict(self, tally: Tally, limit: Limits, precision: str) -> Verdict:
        found = tally.findings(limit, int8=is_quantised(precision))
        if self._truth is not None:
            before, after = self._map(self._reference_labels), self._map(tally.labels)
            found.figures["map50_95"] = {
                "reference": round(before, 4),
                "candidate": round(after, 4),
            }
            found.figures["map_loss"] = round(before - after, 4)
            found.reasons += map_faults(before, after, limit)
        elif self._truth_unused:
            found.notes.append("ground truth is upright boxes: not used for this task")
        figures = {**found.figures, "limits": asdict(limit), "notes": found.notes}
        return Verdict(not found.reasons, figures, tuple(found.reasons))

    def _map(self, found: Sequence[Labelled]) -> float:
        assert self._truth is not None
        truth = self._truth
        if self._wanted.classes is not None:
            truth = [_only(labels, self._wanted.classes) for labels in truth]
        return mean_average_precision(found, truth).map50_95


def _thresholds(settings: PostprocessSettings, classes: int) -> NDArray[np.float32]:
    values = np.full(classes, settings.confidence, np.float32)
    for class_id, least in settings.class_confidence.items():
        values[class_id] = least
    return values


def _only(labels: Labelled, classes: frozenset[int]) -> Labelled:
    wanted = np.isin(labels.class_ids, list(classes))
    return Labelled(labels.boxes[wanted], labels.class_ids[wanted], labels.scores[wanted])
