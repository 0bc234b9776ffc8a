"""How alike two models answer, whose classes may be numbered differently."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.vision.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from agent.detection import Detections

AT_IOU = 0.5
"""Boxes that overlap less are not of the same object."""

DIGITS = 4


class Classes:
    """The class names of two models as one list, the first model's first.

    Args:
        names: of the first model.
        others: of the second.

    Attributes:
        names: of both, each once.
    """

    def __init__(self, names: Sequence[str], others: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys((*names, *others)))
        number = {name: index for index, name in enumerate(self.names)}
        self._first = _table(names, number)
        self._second = _table(others, number)

    def of_first(self, found: Detections) -> Detections:
        """The first model's detections with numbers of `names`."""
        return replace(found, class_ids=self._first[found.class_ids])

    def of_second(self, found: Detections) -> Detections:
        """The second model's, likewise."""
        return replace(found, class_ids=self._second[found.class_ids])


class Likeness:
    """Adds up frame after frame how far two models find the same objects.

    Args:
        classes: of both; `add` takes detections with its numbers.
    """

    def __init__(self, classes: Classes) -> None:
        self.frames = 0
        # What is given has passed the models' own thresholds.
        self._agreement = Agreement(np.zeros(len(classes.names), np.float32), 0.0)

    def add(self, active: Detections, candidate: Detections) -> None:
        """Compare what both found in one frame."""
        self.frames += 1
        self._agreement.add(active, candidate)

    def figures(self) -> dict[str, object]:
        """Of all frames: `share` is that of all objects, of both, that the other has found too.

        It is the harmonic mean of precision and recall of one measured by the other (the Dice
        coefficient), and 1 where neither found anything.
        """
        boxes = self._agreement.figures((AT_IOU,))
        objects = boxes.reference + boxes.candidate
        pairs = boxes.matched[AT_IOU] * boxes.reference
        drift = boxes.score_drift
        return {
            "frames": self.frames,
            "active_objects": boxes.reference,
            "candidate_objects": boxes.candidate,
            "share": round(2 * pairs / objects, DIGITS) if objects else 1.0,
            "score_drift": None if drift is None else round(drift, DIGITS),
        }


def _table(names: Sequence[str], number: dict[str, int]) -> NDArray[np.int32]:
    return np.array([number[name] for name in names], np.int32)
