import json
import math

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import WireError
from agent.wire.schema import UPDATE_STATE, schema
from agent.wire.updatestate import UpdateState, encode_update_state, parse_update_state

COUNTS = st.integers(0, 2**64 - 1)
STATES = st.builds(
    UpdateState,
    slot=st.just("main"),
    state=st.sampled_from(["IDLE", "FETCHING", "COMMITTED"]),
    campaign=st.sampled_from(["", "c1"]),
    digest=st.sampled_from(["", "0" * 64]),
    family=st.text(max_size=5),
    counter=COUNTS,
    release_counter=COUNTS,
    attempt=st.integers(0, 3),
    reason=st.text(max_size=20),
    figures=st.none() | st.just({"gate": {"score": 0.5}}),
    key_level=st.sampled_from(["", "L0"]),
)


def encoded(state: UpdateState) -> bytes:
    return encode_update_state(state, device="d1", boot="b1", ts=1.5)


@given(STATES)
def test_what_is_told_is_valid_and_read_back(state):
    payload = encoded(state)
    jsonschema.validate(json.loads(payload), schema(UPDATE_STATE))
    assert parse_update_state(payload) == state


def test_progress_has_a_percentage():
    state = UpdateState("main", "FETCHING", done=1, total=3, rate=1234.6, eta_s=2.04)
    message = json.loads(encoded(state))
    assert (message["pct"], message["rate"], message["eta_s"]) == (33.3, 1235, 2.0)


def test_a_figure_that_is_no_number_is_refused():
    with pytest.raises(WireError, match="figures"):
        encoded(UpdateState("main", "REJECTED", figures={"score": math.nan}))


@given(st.binary(max_size=60) | st.dictionaries(st.text(), st.none() | st.integers()).map(repr))
def test_anything_else_is_one_kind_of_error(data):
    payload = data if isinstance(data, bytes) else data.encode()
    with pytest.raises(WireError):
        parse_update_state(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [("state", 3), ("slot", None), ("counter", -1), ("counter", 2**64), ("done", True),
     ("figures", []), ("reason", 1), ("schema", "vigia.status/1")],
)  # fmt: skip
def test_a_field_of_the_wrong_kind_is_refused(field, value):
    message = json.loads(encoded(UpdateState("main", "IDLE")))
    with pytest.raises(WireError):
        parse_update_state(json.dumps({**message, field: value}).encode())
