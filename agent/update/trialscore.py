"""How well a candidate and the active model answer the golden set, by the metric of the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agent.gatetally import labelled
from agent.update.likeness import Likeness
from agent.vision.metrics import Labelled, mean_average_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.update.likeness import Classes
    from agent.update.trialmodel import Reply

DIGITS = 4


class Scores:
    """Adds up the answers of both models, picture by picture.

    Args:
        metric: "map50_95", "top1" or "agreement".
        classes: of the candidate first, then of the active model.
        truth: what is in the pictures, in `classes`' numbers, in their order; None if unknown.
        wanted: class numbers that the slot reports; None for all.
    """

    def __init__(
        self,
        metric: str,
        classes: Classes,
        truth: Sequence[Labelled] | None,
        wanted: frozenset[int] | None,
    ) -> None:
        self._metric = metric
        self._classes = classes
        self._wanted = wanted
        self._truth = None if truth is None else [_only(labels, wanted) for labels in truth]
        self._found: list[Labelled] = []
        self._active: list[Labelled] = []
        self._same_best = 0
        self._likeness = Likeness(classes)

    @property
    def every(self) -> bool:
        """Whether objects of every score are needed."""
        return self._metric != "agreement"

    def add(self, candidate: Reply, active: Reply | None) -> None:
        """Take what both said to the next picture."""
        own = candidate.all_found or candidate.found
        self._found.append(labelled(self._classes.of_first(own)))
        if active is None:
            return
        other = active.all_found or active.found
        self._active.append(labelled(self._classes.of_second(other)))
        self._same_best += _best(self._found[-1]) == _best(self._active[-1])
        self._likeness.add(
            self._classes.of_second(active.found), self._classes.of_first(candidate.found)
        )

    def figures(self) -> dict[str, object]:
        """`score`, `active_score` (None where they cannot be told) and `agreement`."""
        score, active = self._scores()
        return {
            "pictures": len(self._found),
            "score": _rounded(score),
            "active_score": _rounded(active),
            "agreement": self._likeness.figures() if self._active else None,
        }

    def _scores(self) -> tuple[float | None, float | None]:
        both = bool(self._active)
        if not self._found:
            return None, None
        if self._metric == "agreement":
            share = self._likeness.figures()["share"]
            return (float(str(share)), 1.0) if both else (None, None)
        if self._metric == "top1" and self._truth is None:
            return (self._same_best / len(self._found), 1.0) if both else (None, None)
        if self._truth is None:
            return None, None
        if self._metric == "top1":
            return _top1(self._found, self._truth), _top1(self._active, self._truth)
        return _map(self._found, self._truth), _map(self._active, self._truth)


def _map(found: Sequence[Labelled], truth: Sequence[Labelled]) -> float | None:
    return mean_average_precision(found, truth).map50_95 if found else None


def _top1(found: Sequence[Labelled], truth: Sequence[Labelled]) -> float | None:
    """Share of pictures whose best class is one that is in the picture."""
    if not found:
        return None
    hits = [_best(f) in set(t.class_ids.tolist()) for f, t in zip(found, truth, strict=True)]
    return sum(hits) / len(hits)


def _best(found: Labelled) -> int | None:
    return int(found.class_ids[int(found.scores.argmax())]) if len(found.scores) else None


def _only(labels: Labelled, wanted: frozenset[int] | None) -> Labelled:
    if wanted is None:
        return labels
    kept = np.isin(labels.class_ids, list(wanted))
    return Labelled(labels.boxes[kept], labels.class_ids[kept], labels.scores[kept])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
