import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import WireError
from agent.wire.schema import schema
from agent.wire.updaterequest import (
    MAX_RANGES,
    MAX_REQUEST_BYTES,
    UpdateRequest,
    encode_update_request,
    parse_update_request,
)

BUNDLE = "0123456789abcdef" * 2

numbers = st.integers(0, 2**32 - 1)
ranges = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


@given(st.booleans(), st.booleans(), st.lists(ranges, max_size=20).map(tuple))
def test_what_is_asked_arrives(manifest, index, blocks):
    request = UpdateRequest(BUNDLE, manifest, index, blocks)
    payload = encode_update_request(request, device="d")
    assert parse_update_request(payload) == ("d", request)
    jsonschema.validate(json.loads(payload), schema("vigia.update-request/1"))


def test_more_ranges_than_fit_are_left_for_another_time():
    blocks = tuple((2**32 - 2, 2**32 - 1) for _ in range(1000))
    payload = encode_update_request(UpdateRequest(BUNDLE, blocks=blocks), device="d" * 64)
    assert len(payload) <= MAX_REQUEST_BYTES
    assert len(parse_update_request(payload)[1].blocks) == MAX_RANGES


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "vigia.status/1"},
        {"device": 1},
        {"bundle": "../../etc"},
        {"bundle": BUNDLE + "0"},
        {"want": []},
        {"want": {"blocks": {}}},
        {"want": {"blocks": [[0, 1]] * (MAX_RANGES + 1)}},
        {"want": {"blocks": [[1, 0]]}},
        {"want": {"blocks": [[-1, 0]]}},
        {"want": {"blocks": [[0, 2**32]]}},
        {"want": {"blocks": [[0]]}},
        {"want": {"blocks": [[0.0, 1.0]]}},
        {"want": {"blocks": [0]}},
    ],
)
def test_anything_else_is_refused(change):
    message = {"schema": "vigia.update-request/1", "device": "d", "bundle": BUNDLE, "want": {}}
    with pytest.raises(WireError):
        parse_update_request(json.dumps(message | change).encode())


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(("schema", "device", "bundle", "want", "blocks")), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_garbage_has_one_error(payload):
    with pytest.raises(WireError):
        parse_update_request(payload)


def test_a_large_message_is_not_even_read():
    with pytest.raises(WireError, match="larger"):
        parse_update_request(b" " * (MAX_REQUEST_BYTES + 1))
