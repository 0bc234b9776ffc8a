from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engines.compare import Comparison, OutputsDifferError, TensorFigures


def figures(reference, candidate) -> TensorFigures:
    comparison = Comparison()
    comparison.add({"x": np.asarray(reference)}, {"x": np.asarray(candidate)})
    return comparison.figures()["x"]


def test_figures_follow_their_formulas():
    found = figures(np.float32([3, 4]), np.float32([3, 5]))
    assert found.cosine == pytest.approx(29 / (5 * math.sqrt(34)))
    assert found.snr_db == pytest.approx(10 * math.log10(25 / 1))
    assert found.max_abs == 1
    assert found.finite


def test_equal_tensors_have_no_noise():
    assert figures(np.float32([0.5, 2]), np.float32([0.5, 2])) == TensorFigures(
        True, 1.0, math.inf, 0.0
    )


def test_what_is_zero_in_both_is_equal():
    assert figures(np.zeros(3), np.zeros(3)).cosine == 1


def test_a_candidate_of_zeros_has_nothing_of_the_reference():
    found = figures(np.float32([0.9, 0.1]), np.zeros(2, np.float32))
    assert (found.cosine, found.snr_db) == (0.0, 0.0)


def test_a_reference_of_zeros_is_all_noise():
    found = figures(np.zeros(2, np.float32), np.float32([1, 1]))
    assert (found.cosine, found.snr_db) == (0.0, -math.inf)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told_and_do_not_spoil_the_rest(value):
    found = figures(np.float32([1, 2, 3]), np.float32([1, value, 3]))
    assert not found.finite
    assert (found.cosine, found.max_abs) == (1.0, 0.0)


def test_what_is_infinite_in_the_reference_too_is_no_fault():
    assert figures(np.float32([1, -np.inf]), np.float32([1, -np.inf])).finite


def test_float16_does_not_overflow_the_sums():
    found = figures(np.float16([60_000, 60_000]), np.float16([60_000, 59_968]))
    assert 0.999 < found.cosine < 1
    assert found.max_abs == 32


@pytest.mark.parametrize(
    "candidate",
    [{"y": np.zeros(2)}, {"x": np.zeros(3)}, {"x": np.zeros(2), "y": np.zeros(2)}, {}],
)
def test_other_names_and_shapes_are_refused(candidate):
    with pytest.raises(OutputsDifferError):
        Comparison().add({"x": np.zeros(2)}, candidate)


values = hnp.arrays(np.float32, 6, elements=st.floats(-1e3, 1e3, width=32))


@given(values, values)
def test_adding_in_parts_is_adding_the_whole(reference, candidate):
    parts = Comparison()
    for part in (slice(2), slice(2, 6)):
        parts.add({"x": reference[part]}, {"x": candidate[part]})
    in_parts, whole = parts.figures()["x"], figures(reference, candidate)
    assert in_parts.cosine == pytest.approx(whole.cosine)
    assert in_parts.max_abs == whole.max_abs
    assert in_parts.snr_db == pytest.approx(whole.snr_db)


@given(values, values)
def test_cosine_is_a_cosine(reference, candidate):
    assert -1.000001 <= figures(reference, candidate).cosine <= 1.000001


def test_figures_are_json():
    strange = figures(np.zeros(2, np.float32), np.float32([1, np.nan]))
    assert json.loads(json.dumps(strange.as_json(), allow_nan=False)) == {
        "finite": False,
        "cosine": 0.0,
        "snr_db": None,
        "max_abs": 1.0,
    }
