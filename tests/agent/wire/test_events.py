import json
import math

import jsonschema
import pytest

from agent.errors import WireError
from agent.wire.events import KINDS, MAX_BODY_BYTES, Event, event_body, event_head
from agent.wire.schema import EVENT, schema


def message(event, seq=0, *, replay=False):
    return json.loads(event_head("d1", "b1", seq, replay=replay) + event_body(event))


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_as_its_schema_says(kind):
    event = Event(kind, "warning", 'a "quoted" sentence', {"age_s": 1.5}, ts=2.0)
    found = message(event, 3, replay=True)
    jsonschema.validate(found, schema(EVENT))
    assert (found["seq"], found["replay"], found["ts"]) == (3, True, 2.0)
    assert found["what"] == 'a "quoted" sentence'


@pytest.mark.parametrize("value", [math.nan, object(), b"bytes"])
def test_what_is_no_json_value_is_refused(value):
    with pytest.raises(WireError, match="event agent cannot be encoded"):
        event_body(Event("agent", "info", "x", {"value": value}))


def test_an_event_that_is_too_large_is_refused():
    with pytest.raises(WireError, match="at most"):
        event_body(Event("agent", "info", "x" * MAX_BODY_BYTES))
