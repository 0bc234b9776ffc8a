from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.vision.nms import by_score, nms, nms_rotated
from tests.agent.vision import reference

side = st.integers(1, 30)
box = st.tuples(st.integers(0, 40), st.integers(0, 40), side, side)
boxes = st.lists(box, max_size=150)
thresholds = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


def arrays(rows, seed):
    """Corners, scores with many ties, and classes."""
    rng = np.random.default_rng(seed)
    x, y, w, h = np.array(rows, np.float32).reshape(-1, 4).T
    corners = np.stack([x, y, x + w, y + h], axis=1)
    scores = rng.integers(0, 10, len(rows)).astype(np.float32) / 10
    return corners, scores, rng.integers(0, 3, len(rows)).astype(np.int32)


def loop(corners, scores, classes, overlap, *, threshold, limit):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if classes is None or classes[k] == classes[i]]
        if all(overlap(corners[k], corners[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept[:limit]


@given(boxes, st.integers(0, 99), thresholds, st.booleans(), st.integers(1, 160))
def test_equals_the_loop(rows, seed, threshold, agnostic, limit):
    corners, scores, classes = arrays(rows, seed)
    chosen = None if agnostic else classes
    got = nms(corners, scores, chosen, threshold, limit)
    exact = corners.astype(float).tolist()
    assert got.tolist() == loop(
        exact, scores, chosen, reference.iou, threshold=threshold, limit=limit
    )


@given(boxes, st.integers(0, 99), st.floats(0.01, 0.99), st.booleans(), st.integers(1, 160))
def test_rotated_equals_the_loop(rows, seed, threshold, agnostic, limit):
    corners, scores, classes = arrays(rows, seed)
    angles = np.random.default_rng(seed).uniform(-1.5, 1.5, (len(rows), 1))
    rotated = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2], angles], axis=1)
    rotated = rotated.astype(np.float32)
    chosen = None if agnostic else classes
    got = nms_rotated(rotated, scores, chosen, threshold, limit)
    exact = rotated.astype(float).tolist()
    assert got.tolist() == loop(
        exact, scores, chosen, reference.probiou, threshold=threshold, limit=limit
    )


@given(boxes, st.integers(0, 99), thresholds)
def test_a_second_time_changes_nothing(rows, seed, threshold):
    corners, scores, classes = arrays(rows, seed)
    kept = nms(corners, scores, classes, threshold, 1000)
    again = nms(corners[kept], scores[kept], classes[kept], threshold, 1000)
    assert again.tolist() == list(range(len(kept)))


@given(boxes, st.integers(0, 99), thresholds)
def test_best_of_each_class_stays_and_scores_fall(rows, seed, threshold):
    corners, scores, classes = arrays(rows, seed)
    kept = nms(corners, scores, classes, threshold, 1000)
    assert (np.diff(scores[kept]) <= 0).all()
    for class_id in set(classes.tolist()):
        assert scores[classes == class_id].max() == scores[kept][classes[kept] == class_id].max()


@given(boxes, st.integers(0, 99), st.integers(1, 160))
def test_limit_keeps_the_first(rows, seed, limit):
    corners, scores, classes = arrays(rows, seed)
    everything = nms(corners, scores, classes, 0.5, 1000)
    limited = nms(corners, scores, classes, 0.5, limit)
    assert limited.tolist() == everything[:limit].tolist()


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_equal_scores_keep_their_order(scores):
    want = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert by_score(scores).tolist() == want


def test_overlap_of_exactly_the_threshold_is_kept():
    pair = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert len(nms(pair, scores, None, 0.5, 10)) == 2
    assert len(nms(pair, scores, None, 0.499, 10)) == 1


def test_rotated_boxes_that_cross_stay():
    cross = np.array([[50, 50, 80, 8, 0], [50, 50, 80, 8, math.pi / 2]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms_rotated(cross, scores, None, 0.5, 10).tolist() == [0, 1]


def test_same_rotated_box_written_two_ways_goes():
    same = np.array([[50, 50, 80, 8, 0.2], [50, 50, 8, 80, 0.2 + math.pi / 2]], np.float32)
    scores = np.array([0.8, 0.9], np.float32)
    assert nms_rotated(same, scores, None, 0.9, 10).tolist() == [1]


@pytest.mark.parametrize("thin", [1e-6, 1e-20])
def test_rotated_boxes_almost_without_area_do_no_harm(thin):
    boxes = np.array([[50, 50, 80, thin, 0.2], [50, 50, thin, thin, 1]], np.float32)
    scores = np.array([0.8, 0.9], np.float32)
    assert set(nms_rotated(boxes, scores, None, 0.5, 10).tolist()) <= {0, 1}
