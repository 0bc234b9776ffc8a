"""Judges an engine: does it still answer what the reference answers, on pictures held out for this?

Two kinds of evidence. Tensors: each part of the outputs must point the same way as the reference's
(cosine). Task: a detector's objects must be found again with about the same boxes and scores, a
classifier's best class must be the same, and where ground truth is given, mAP must not fall. Scores
are a part of their own, so an engine whose scores are all 0 falls by both.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.calibration import placed
from agent.errors import OutputError
from agent.gatelimits import (
    MIN_BOXES,
    Scores,
    box_faults,
    limits,
    map_faults,
    tensor_faults,
    top1_faults,
)
from agent.modelsettings import postprocess_settings
from agent.vision.agreement import Agreement
from agent.vision.decode import Decoder
from agent.vision.metrics import Labelled, mean_average_precision
from agent.vision.parts import SCORES, split
from engines.base import FrameContext
from engines.compare import Comparison, Verdict
from engines.errors import CalibrationError
from engines.model import Layout, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from agent.calibration import Picture
    from agent.config import ModelConfig
    from agent.detection import Detections
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

REPORTED_IOUS = (0.5, 0.75)
"""Overlaps that are reported beside the one that is judged."""

TIE = 0.02
"""Two classes whose probabilities are nearer than this are both a picture's best class."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an engine gives for one picture.

    Attributes:
        parts: the outputs, taken apart.
        detections: decoded at a threshold below the configured one.
    """

    parts: dict[str, NDArray[np.float32]]
    detections: Detections


class Answers:
    """Runs an engine on pictures, one after the other.

    Args:
        engine: not closed here.
        info: its model.
        settings: what of its outputs is decoded.

    Raises:
        InferenceError: it gives no context.
    """

    def __init__(self, engine: Engine, info: ModelInfo, settings: PostprocessSettings) -> None:
        self._info = info
        self._decoder = Decoder(info, settings)
        self._context = engine.create_context(info.max_batch or 1)

    def __enter__(self) -> Answers:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_error: object) -> None:
        self._context.close()

    def of(self, picture: Picture) -> Answer:
        """Run the engine; a fixed batch is filled up with what was in it before.

        Raises:
            InferenceError: it failed.
            OutputError: its outputs cannot be decoded.
        """
        if isinstance(self._context, FrameContext):
            whole = (0, 0, self._info.width, self._info.height)
            self._context.write_frame(0, picture.pixels, whole, whole)
        else:
            (array,) = self._context.inputs.values()
            array[0] = picture.pixels
        outputs = self._context.infer()
        found = self._decoder(outputs, 0, picture.placement)
        return Answer(split(self._info, outputs, 0), found)


class Gate:
    """Compares engines of one model with its reference.

    Args:
        info: the model.
        config: its slot's settings: thresholds, filters and limits.
        reference: FP32 on ONNX Runtime; not closed here, and must stay open.
        images: held-out pictures.
        truth: what is in them, in the same order, or None.

    Raises:
        CalibrationError: there are no pictures, or as many truths as pictures.
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
                self._reference_labels.append(_labelled(answer.detections))
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
        tally = _Tally(self._info, self._thresholds, limit.max_score_drift)
        try:
            with Answers(engine, info, self._settings) as answers:
                own, others = placed(self._images, self._info), placed(images, info)
                for expected, picture in zip(self._expected(own), others, strict=True):
                    tally.add(expected, answers.of(picture))
        except OutputError as error:
            return Verdict(False, {"pictures": tally.pictures}, (str(error),))
        except ValueError as error:
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

    def _verdict(self, tally: _Tally, limit: Limits, precision: str) -> Verdict:
        tensors = tally.comparison.figures()
        figures: dict[str, Any] = {
            "pictures": tally.pictures,
            "tensors": {name: value.as_json() for name, value in tensors.items()},
            "limits": asdict(limit),
        }
        notes: list[str] = []
        reasons: list[str] = []
        judge_scores = True
        if self._info.layout is Layout.CLASSES:
            top1 = tally.same_class / tally.pictures
            figures["top1"] = round(top1, 4)
            reasons += top1_faults(top1, limit)
        else:
            boxes = tally.agreement.figures((*REPORTED_IOUS, limit.match_iou))
            figures["boxes"] = _plain(boxes)
            judge_scores = boxes.reference >= MIN_BOXES
            reasons += box_faults(boxes, tally.scores, limit, int8=precision == "int8")
            if not judge_scores:
                notes.append(
                    f"the reference finds {boxes.reference} objects in {tally.pictures} pictures: "
                    "too few to judge by; what is judged is the tensors except scores"
                )
        if self._truth is not None:
            before = self._map(self._reference_labels)
            after = self._map(tally.labels)
            figures["map50_95"] = {
                "reference": round(before, 4),
                "candidate": round(after, 4),
                "loss": round(before - after, 4),
            }
            reasons += map_faults(before, after, limit)
        elif self._truth_unused:
            notes.append("ground truth is upright boxes: not used for this task")
        reasons += tensor_faults(tensors, limit, judge_scores=judge_scores)
        figures["notes"] = notes
        return Verdict(not reasons, figures, tuple(reasons))

    def _map(self, found: Sequence[Labelled]) -> float:
        assert self._truth is not None
        truth = self._truth
        if self._wanted.classes is not None:
            truth = [_only(labels, self._wanted.classes) for labels in truth]
        return mean_average_precision(found, truth).map50_95


class _Tally:
    """Everything that is added up over the pictures of one comparison."""

    def __init__(self, info: ModelInfo, thresholds: NDArray[np.float32], slack: float) -> None:
        self.pictures = 0
        self.same_class = 0
        self.scores = Scores(0.0, 0.0)
        self.labels: list[Labelled] = []
        self.comparison = Comparison()
        self.agreement = Agreement(thresholds, slack)
        self._info = info

    def add(self, expected: Answer, found: Answer) -> None:
        self.comparison.add(expected.parts, found.parts)
        self.pictures += 1
        r, c = expected.parts[SCORES], found.parts[SCORES]
        self.scores = Scores(
            max(self.scores.reference, float(r.max())), max(self.scores.candidate, float(c.max()))
        )
        if self._info.layout is Layout.CLASSES:
            self.same_class += _same_class(r, c, logits=self._info.logits)
        else:
            self.agreement.add(expected.detections, found.detections)
            self.labels.append(_labelled(found.detections))


def _same_class(r: NDArray[np.float32], c: NDArray[np.float32], *, logits: bool) -> bool:
    """Whether the candidate's best class is the reference's, or as good as it for the reference."""
    if logits:
        powers = np.exp(r - r.max())
        r = powers / powers.sum()
    return bool(r[int(c.argmax())] >= r.max() - TIE)


def _thresholds(settings: PostprocessSettings, classes: int) -> NDArray[np.float32]:
    values = np.full(classes, settings.confidence, np.float32)
    for class_id, least in settings.class_confidence.items():
        values[class_id] = least
    return values


def _labelled(found: Detections) -> Labelled:
    return Labelled(found.boxes, found.class_ids, found.scores)


def _only(labels: Labelled, classes: frozenset[int]) -> Labelled:
    wanted = np.isin(labels.class_ids, list(classes))
    return Labelled(labels.boxes[wanted], labels.class_ids[wanted], labels.scores[wanted])


def _plain(boxes: Any) -> dict[str, object]:
    """Rounded, with texts as keys, as JSON has them."""
    plain: dict[str, object] = {}
    for name, value in asdict(boxes).items():
        if isinstance(value, dict):
            plain[name] = {f"{at:g}": round(share, 4) for at, share in value.items()}
        else:
            plain[name] = round(value, 4) if isinstance(value, float) else value
    return plain
