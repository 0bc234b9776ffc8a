"""How alike two models answer whose classes are numbered differently."""

from __future__ import annotations

import numpy as np
import pytest

from agent.detection import Detections
from agent.update.likeness import Classes, Likeness

A, B = ("box", "bag"), ("tube", "bag", "box")


def found(*objects: tuple[int, int], names=A) -> Detections:
    """Objects: place, and class number."""
    boxes = [(20 * place, 0, 20 * place + 10, 10) for place, _ in objects]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(objects), 0.8, np.float32),
        np.array([number for _, number in objects], np.int32),
    )


def share(active: Detections, candidate: Detections) -> float:
    classes = Classes(A, B)
    likeness = Likeness(classes)
    likeness.add(classes.of_first(active), classes.of_second(candidate))
    return likeness.figures()["share"]


def test_names_of_both_stand_once_the_first_models_first():
    assert Classes(A, B).names == ("box", "bag", "tube")


def test_the_same_objects_are_alike_however_their_classes_are_numbered():
    assert share(found((0, 0), (1, 1)), found((0, 2), (1, 1))) == 1.0


def test_the_same_number_of_another_class_is_not_alike():
    assert share(found((0, 0)), found((0, 0))) == 0.0


@pytest.mark.parametrize(
    ("active", "candidate", "expected"),
    [
        ([(0, 1), (1, 1)], [(0, 1)], 2 / 3),
        ([(0, 1)], [(0, 1), (1, 1)], 2 / 3),
        ([], [(0, 1)], 0.0),
        ([(0, 1)], [], 0.0),
        ([], [], 1.0),
    ],
)
def test_what_is_lost_counts_like_what_is_invented(active, candidate, expected):
    assert share(found(*active), found(*candidate)) == pytest.approx(expected, abs=1e-4)


def test_frames_are_added_up():
    classes = Classes(A, A)
    likeness = Likeness(classes)
    likeness.add(found((0, 0)), found((0, 0)))
    likeness.add(found((0, 0), (1, 0)), found())
    assert likeness.figures() == {
        "frames": 2,
        "active_objects": 3,
        "candidate_objects": 1,
        "share": 0.5,
        "score_drift": 0.0,
    }
