from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.canonical import canonical

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


def typed(value):
    """A value that equals another only if it is the same in type, too, and in sign of zero."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return (type(value).__name__, repr(value))


@settings(deadline=None)
@given(VALUES, VALUES)
def test_two_values_have_one_text_exactly_if_they_are_the_same(one, other):
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@settings(deadline=None)
@given(VALUES)
def test_the_text_reads_back_as_the_value_and_is_plain_ascii(value):
    assert typed(json.loads(canonical(value))) == typed(value)
    canonical(value).encode("ascii")


def test_the_order_of_keys_does_not_matter():
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, float("nan")]}, r"\.a\[1\] = nan"),
        ({"a": float("inf")}, r"\.a = inf"),
        ({"a": b"bytes"}, r"\.a = b'bytes' \(bytes\)"),
        ({"a": {1: 2}}, r"key 1 of \.a is no text"),
        ({"a": {1, 2}}, r"\.a"),
        (type("Sub", (str,), {})("x"), "the value"),
    ],
)
def test_what_json_has_no_one_form_for_is_refused_with_its_place(value, place):
    with pytest.raises(TypeError, match=place):
        canonical(value)
