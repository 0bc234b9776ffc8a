"""Adds up how an engine's answers differ from the reference's, picture by picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.gatelimits import MIN_BOXES, Scores, box_faults, tensor_faults, top1_faults
from agent.vision.agreement import Agreement, BoxFigures
from agent.vision.metrics import Labelled
from agent.vision.parts import SCORES
from engines.compare import Comparison
from engines.model import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.answers import Answer
    from agent.detection import Detections
    from agent.gatelimits import Limits
    from engines.model import ModelInfo

REPORTED_IOUS = (0.5, 0.75)
"""Overlaps that are reported beside the one that is judged."""

TIE = 0.02
"""Two classes whose probabilities are nearer than this are both a picture's best class."""


@dataclass(slots=True)
class Findings:
    """What the pictures say; figures are JSON values."""

    figures: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Tally:
    """One comparison.

    Args:
        info: the reference's model.
        thresholds: float32 [classes], least score of an object of each class.
        slack: see `agent.vision.agreement.Agreement`.
    """

    def __init__(self, info: ModelInfo, thresholds: NDArray[np.float32], slack: float) -> None:
        self.pictures = 0
        self.labels: list[Labelled] = []
        self._info = info
        self._same_class = 0
        self._scores = Scores(0.0, 0.0)
        self._comparison = Comparison()
        self._agreement = Agreement(thresholds, slack)

    def add(self, expected: Answer, found: Answer) -> None:
        """Compare the answers to one picture.

        Raises:
            OutputsDifferError: they cannot be compared.
        """
        self._comparison.add(expected.parts, found.parts)
        self.pictures += 1
        r, c = expected.parts[SCORES], found.parts[SCORES]
        before = self._scores
        self._scores = Scores(
            max(before.reference, float(r.max())), max(before.candidate, float(c.max()))
        )
        if self._info.layout is Layout.CLASSES:
            self._same_class += _same_class(r, c, logits=self._info.logits)
        else:
            self._agreement.add(expected.detections, found.detections)
            self.labels.append(labelled(found.detections))

    def findings(self, limit: Limits, *, int8: bool) -> Findings:
        """Figures and faults of everything that was added, but for mAP."""
        found = Findings({"pictures": self.pictures})
        tensors = self._comparison.figures()
        judge_scores = True
        if self._info.layout is Layout.CLASSES:
            top1 = self._same_class / self.pictures
            found.figures["top1"] = round(top1, 4)
            found.reasons += top1_faults(top1, limit)
        else:
            boxes = self._agreement.figures((*REPORTED_IOUS, limit.match_iou))
            judge_scores = boxes.reference >= MIN_BOXES
            found.figures["boxes"] = _plain(boxes)
            if judge_scores:
                found.figures["matched"] = round(boxes.matched[limit.match_iou], 4)
                found.figures["score_drift"] = found.figures["boxes"]["score_drift"]
            else:
                found.notes.append(
                    f"the reference finds {boxes.reference} objects in {self.pictures} pictures: "
                    "too few to judge by; what is judged is the tensors except scores"
                )
            found.reasons += box_faults(boxes, self._scores, limit, int8=int8)
        judged = [f.cosine for name, f in tensors.items() if judge_scores or name != SCORES]
        if judged:
            found.figures["cosine"] = round(min(judged), 6)
        found.figures["tensors"] = {name: value.as_json() for name, value in tensors.items()}
        found.reasons += tensor_faults(tensors, limit, judge_scores=judge_scores)
        return found


def labelled(found: Detections) -> Labelled:
    """Detections as mAP takes them."""
    return Labelled(found.boxes, found.class_ids, found.scores)


def _same_class(r: NDArray[np.float32], c: NDArray[np.float32], *, logits: bool) -> bool:
    """Whether the candidate's best class is the reference's, or as good as it for the reference."""
    if logits:
        powers = np.exp(r - r.max())
        r = powers / powers.sum()
    return bool(r[int(c.argmax())] >= r.max() - TIE)


def _plain(boxes: BoxFigures) -> dict[str, object]:
    """Rounded, with texts as keys, as JSON has them."""
    plain: dict[str, object] = {}
    for name, value in asdict(boxes).items():
        if isinstance(value, dict):
            plain[name] = {f"{at:g}": round(share, 4) for at, share in value.items()}
        else:
            plain[name] = round(value, 4) if isinstance(value, float) else value
    return plain
