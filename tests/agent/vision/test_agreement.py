from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.detection import Detections, Mask
from agent.vision.agreement import Agreement, mask_iou, pairs, rotated_iou

THRESHOLDS = np.float32([0.5, 0.3])


def found(*rows, **extra) -> Detections:
    """Rows of x0, y0, x1, y1, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32), **extra)


def compare(reference: Detections, candidate: Detections, slack: float = 0.05):
    agreement = Agreement(THRESHOLDS, slack)
    agreement.add(reference, candidate)
    return agreement.figures((0.5, 0.9))


def test_equal_detections_agree():
    same = found((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.4, 1))
    figures = compare(same, same)
    assert (figures.reference, figures.candidate) == (2, 2)
    assert figures.matched == figures.supported == {0.5: 1.0, 0.9: 1.0}
    assert figures.score_drift == 0


def test_a_shifted_box_is_matched_only_at_low_overlap():
    figures = compare(found((0, 0, 10, 10, 0.9, 0)), found((1, 0, 11, 10, 0.8, 0)))
    assert figures.matched == {0.5: 1.0, 0.9: 0.0}
    assert figures.score_drift == pytest.approx(0.1)


def test_the_same_box_of_another_class_is_no_match():
    figures = compare(found((0, 0, 10, 10, 0.9, 0)), found((0, 0, 10, 10, 0.9, 1)))
    assert figures.matched[0.5] == figures.supported[0.5] == 0
    assert figures.score_drift is None


def test_two_boxes_cannot_share_a_partner():
    figures = compare(
        found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0)), found((0, 0, 10, 10, 0.9, 0))
    )
    assert figures.matched[0.9] == 0.5
    assert figures.supported[0.9] == 1


def test_a_score_that_moves_a_little_across_its_threshold_is_not_lost():
    above, below = found((0, 0, 10, 10, 0.51, 0)), found((0, 0, 10, 10, 0.46, 0))
    figures = compare(above, below)
    assert (figures.reference, figures.candidate, figures.matched[0.9]) == (1, 0, 1.0)
    figures = compare(below, above)
    assert (figures.reference, figures.candidate, figures.supported[0.9]) == (0, 1, 1.0)


def test_a_score_that_falls_far_below_its_threshold_is_lost():
    figures = compare(found((0, 0, 10, 10, 0.51, 0)), found((0, 0, 10, 10, 0.44, 0)))
    assert figures.matched[0.5] == 0


def test_each_class_has_its_threshold():
    same = found((0, 0, 10, 10, 0.4, 0), (20, 0, 30, 10, 0.4, 1))
    assert compare(same, same).reference == 1


def test_nothing_beside_nothing_agrees():
    figures = compare(Detections.empty(), Detections.empty())
    assert figures.matched[0.9] == figures.supported[0.9] == 1


boxes = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(1, 20),
        st.floats(0, 1, width=32), st.integers(0, 1),
    ),
    max_size=8,
)  # fmt: skip


@given(boxes, boxes)
def test_pairs_are_one_to_one_and_of_one_class(first, second):
    a, b = (
        found(*[(x, y, x + w, y + h, score, c) for x, y, w, h, score, c in rows])
        for rows in (first, second)
    )
    result = pairs(a, b)
    assert len({i for i, _, _ in result}) == len({j for _, j, _ in result}) == len(result)
    for i, j, overlap in result:
        assert a.class_ids[i] == b.class_ids[j]
        assert 0.5 <= overlap <= 1.000001
    assert len(result) == len(pairs(b, a))


def test_rotated_boxes_overlap_as_they_are_rotated():
    along = np.float32([50, 50, 40, 10, 0])
    assert rotated_iou(along, along) == pytest.approx(1, abs=1e-3)
    crossing = rotated_iou(along, np.float32([50, 50, 40, 10, np.pi / 2]))
    assert crossing == pytest.approx(100 / 700, abs=1e-3)
    assert rotated_iou(along, np.float32([200, 50, 40, 10, 0])) == 0


def test_a_turned_box_with_the_same_upright_one_is_not_the_same():
    upright = (30, 30, 70, 70, 0.9, 0)
    left, right = (
        found(upright, rotated=np.float32([[50, 50, 50, 6, angle]]))
        for angle in (np.pi / 4, -np.pi / 4)
    )
    assert compare(left, right).matched[0.5] == 0
    assert compare(left, left).matched[0.9] == 1


def test_masks_are_compared_where_they_lie():
    bits = np.ones((4, 4), bool)
    here, beside, half = Mask(bits, 0, 0), Mask(bits, 10, 0), Mask(bits, 2, 0)
    assert mask_iou(here, here) == 1
    assert mask_iou(here, beside) == 0
    assert mask_iou(here, half) == pytest.approx(8 / 24)
    empty = Mask(np.zeros((2, 2), bool), 0, 0)
    assert mask_iou(empty, empty) == 1


def test_masks_of_pairs_are_compared():
    row = (0, 0, 10, 10, 0.9, 0)
    whole = found(row, masks=(Mask(np.ones((10, 10), bool), 0, 0),))
    half = found(row, masks=(Mask(np.ones((10, 5), bool), 0, 0),))
    assert compare(whole, half).mask_iou == pytest.approx(0.5)


def test_visible_keypoints_of_pairs_are_compared_in_units_of_the_box():
    row = (0, 0, 10, 10, 0.9, 0)
    before = found(row, keypoints=np.float32([[[1, 1, 1], [5, 5, 0.1]]]))
    after = found(row, keypoints=np.float32([[[4, 5, 1], [9, 9, 0.1]]]))
    assert compare(before, after).keypoint_error == pytest.approx(0.5)
