from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import CalibrationError
from engines.ranges import METHODS, Ranges

GOOD = Ranges("max", "sha256:aa", "sha256:bb", 3, {"x": 1.5, "y": 0.0}, {"x": -0.25, "y": 0.0})


@st.composite
def ranges(draw):
    names = draw(st.lists(st.text(min_size=1), unique=True, max_size=8))
    amax = {n: draw(st.floats(0, 1e30)) for n in names}
    least = {n: -draw(st.floats(0, 1)) * v for n, v in amax.items()}
    return Ranges(
        draw(st.sampled_from(METHODS)), draw(st.text()), draw(st.text()), draw(st.integers(0)),
        amax, least,
    )  # fmt: skip


@given(ranges())
def test_ranges_come_back_from_their_text(value):
    again = Ranges.from_json(value.to_json())
    assert again == value
    assert again.digest == value.digest


def test_the_order_of_tensors_does_not_change_the_digest():
    turned = {n: dict(reversed(getattr(GOOD, n).items())) for n in ("amax", "least")}
    again = Ranges("max", "sha256:aa", "sha256:bb", 3, **turned)
    assert again.digest == GOOD.digest


@pytest.mark.parametrize(
    "change",
    [
        {"method": "entropy"},
        {"model_digest": "sha256:ab"},
        {"data_digest": "sha256:ab"},
        {"images": 4},
        {"amax": {"x": math.nextafter(1.5, 2), "y": 0.0}},
        {"least": {"x": -0.5, "y": 0.0}},
    ],
)
def test_every_field_is_in_the_digest(change):
    fields = {f: getattr(GOOD, f) for f in Ranges.__slots__}
    assert Ranges(**{**fields, **change}).digest != GOOD.digest


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"schema": "vigia.ranges/2"}, "schema"),
        ({"recipe": 99}, "recipe"),
        ({"method": "kl"}, "method"),
        ({"images": "3"}, "images"),
        ({"images": True}, "images"),
        ({"extra": 1}, "unknown fields: extra"),
        ({"amax": {"x": "1"}}, "'x'"),
        ({"amax": {"x": 10**400}}, "'x'"),
        ({"amax": {"x": 1.0}}, "half a range"),
        ({"amax": {"x": -1.0, "y": 0.0}}, "'x'"),
        ({"least": {"x": 0.5, "y": 0.0}}, "'x'"),
        ({"least": {"x": -2.0, "y": 0.0}}, "'x'"),
    ],
)
def test_a_text_that_no_calibration_wrote_is_refused_with_what_to_do(change, fault):
    text = json.dumps({**json.loads(GOOD.to_json()), **change})
    with pytest.raises(CalibrationError, match=fault):
        Ranges.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        GOOD.to_json()[:-1],
        GOOD.to_json().replace("1.5", "NaN"),
        GOOD.to_json().replace("1.5", "Infinity"),
        GOOD.to_json().replace("1.5", "1e999"),
        GOOD.to_json().replace('"images":3', '"images":3,"images":3'),
        "[" * 100_000,
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(CalibrationError):
        Ranges.from_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_ranges_that_are_not_finite_and_positive_cannot_be_made(value):
    with pytest.raises(CalibrationError, match="'x'"):
        Ranges("max", "m", "d", 1, {"x": value}, {"x": 0.0})
