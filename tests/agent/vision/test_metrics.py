from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.vision.metrics import IOU_THRESHOLDS, Labelled, mean_average_precision

BOX = [0, 0, 10, 10]


def labelled(*rows: tuple) -> Labelled:
    """Rows of (box, class id, score)."""
    return Labelled(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int32),
        np.array([r[2] for r in rows], np.float32),
    )


def test_the_truth_itself_is_perfect():
    truth = [labelled((BOX, 0, 1), ([20, 20, 40, 50], 1, 1)), labelled()]
    figures = mean_average_precision(truth, truth)
    assert (figures.map50, figures.map50_95) == pytest.approx((1, 1))
    assert figures.truths == 2


def test_nothing_found_is_zero_and_no_truth_is_zero():
    truth = [labelled((BOX, 0, 1))]
    assert mean_average_precision([labelled()], truth).map50 == 0
    assert mean_average_precision(truth, [labelled()]).map50 == 0


def test_a_hand_worked_case():
    # By falling score: hit, miss, hit. Recall 1/2 with precision 1, recall 1 with precision 2/3:
    # 51 of the 101 levels have precision 1, 50 have 2/3.
    truth = [labelled((BOX, 0, 1), ([50, 50, 60, 60], 0, 1))]
    found = [labelled((BOX, 0, 0.9), ([100, 100, 110, 110], 0, 0.8), ([50, 50, 60, 60], 0, 0.7))]
    assert mean_average_precision(found, truth).map50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_second_detection_of_the_same_truth_is_a_mistake():
    truth = [labelled((BOX, 0, 1))]
    twice = [labelled((BOX, 0, 0.9), (BOX, 0, 0.95))]
    assert mean_average_precision(twice, truth).map50 == pytest.approx(1)
    late = [labelled((BOX, 0, 0.9), ([100, 0, 110, 10], 0, 0.95))]
    assert mean_average_precision(late, truth).map50 == pytest.approx(0.5)


def test_overlap_counts_at_each_threshold_of_its_own():
    # Intersection 80 of union 100: hits at 0.50 … 0.80, seven thresholds of ten.
    found = [labelled(([0, 0, 10, 8], 0, 1))]
    figures = mean_average_precision(found, [labelled((BOX, 0, 1))])
    assert figures.map50 == pytest.approx(1)
    assert figures.map50_95 == pytest.approx(0.7)


def test_classes_do_not_mix():
    figures = mean_average_precision([labelled((BOX, 1, 1))], [labelled((BOX, 0, 1))])
    assert figures.ap50 == {0: 0}


def test_predictions_and_truths_of_different_pictures_are_refused():
    with pytest.raises(ValueError, match="zip"):
        mean_average_precision([], [labelled((BOX, 0, 1))])


def reference(predictions, truths, threshold):
    """AP averaged over classes, by plain loops."""
    values = []
    for cls in sorted({int(c) for t in truths for c in t.class_ids}):
        rows, total = [], 0
        for number, (p, t) in enumerate(zip(predictions, truths, strict=True)):
            total += int((t.class_ids == cls).sum())
            rows += [
                (-p.scores[i], number, i) for i in range(len(p.scores)) if p.class_ids[i] == cls
            ]
        used, points, hits = set(), [], 0
        for rank, (_, number, i) in enumerate(sorted(rows), 1):
            best, chosen = threshold, None
            for j in range(len(truths[number].class_ids)):
                if truths[number].class_ids[j] == cls and (number, j) not in used:
                    overlap = iou(predictions[number].boxes[i], truths[number].boxes[j])
                    if overlap >= best and (chosen is None or overlap > best):
                        best, chosen = overlap, (number, j)
            if chosen is not None:
                used.add(chosen)
                hits += 1
            points.append((hits / total, hits / rank))
        levels = np.linspace(0, 1, 101)
        values.append(sum(max([p for r, p in points if r >= x], default=0) for x in levels) / 101)
    return sum(values) / len(values) if values else 0.0


def iou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return float(w * h) / float(union)


@st.composite
def scenes(draw):
    """Boxes on a coarse raster, so that overlaps at every threshold happen; scores all differ."""
    scores = draw(st.permutations(range(40)))
    pictures = []
    for _ in range(2):
        pair = []
        for count in (draw(st.integers(0, 5)), draw(st.integers(0, 4))):
            rows = []
            for _ in range(count):
                x, y = draw(st.integers(0, 6)), draw(st.integers(0, 6))
                w, h = draw(st.integers(5, 12)), draw(st.integers(5, 12))
                rows.append(([x, y, x + w, y + h], draw(st.integers(0, 1)), scores.pop() / 64))
            pair.append(labelled(*rows))
        pictures.append(pair)
    return [p for p, _ in pictures], [t for _, t in pictures]


@given(scenes())
def test_it_agrees_with_plain_loops(scene):
    predictions, truths = scene
    figures = mean_average_precision(predictions, truths)
    assert figures.map50 == pytest.approx(reference(predictions, truths, 0.5), abs=1e-6)
    mean = np.mean([reference(predictions, truths, float(t)) for t in IOU_THRESHOLDS])
    assert figures.map50_95 == pytest.approx(float(mean), abs=1e-6)
