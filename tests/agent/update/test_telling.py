import json

import jsonschema
import pytest

from agent.update.record import Record, State
from agent.update.telling import TELL_EVERY_S, Teller
from agent.wire.schema import UPDATE_STATE, schema
from agent.wire.topics import Topics

FETCHING = Record(
    "main",
    State.FETCHING,
    campaign="c1",
    counter=3,
    digest="ab" * 32,
    release_counter=2,
    family="f",
    version="v2",
)


class Told:
    def __init__(self):
        self.messages = []
        self.now = 100.0
        self.teller = Teller(
            self._retain,
            Topics("vigia/v1", "d1"),
            device="d1",
            boot="b1",
            key_level="L0",
            clock=lambda: self.now,
            wall=lambda: 1.5,
        )

    def _retain(self, topic, payload, schema_id):
        assert topic == "vigia/v1/d1/update/state/main"
        assert schema_id == UPDATE_STATE
        message = json.loads(payload)
        jsonschema.validate(message, schema(UPDATE_STATE))
        self.messages.append(message)


@pytest.fixture
def told():
    return Told()


def test_a_record_is_told_as_it_is(told):
    told.teller.record(FETCHING)
    (message,) = told.messages
    assert message["state"] == "FETCHING"
    assert (message["campaign"], message["counter"], message["key_level"]) == ("c1", 3, "L0")


def test_figures_and_reason_are_told(told):
    told.teller.record(
        Record("main", State.REJECTED, counter=1, reason="too slow", figures='{"gate":{"p95":9}}')
    )
    assert told.messages[0]["reason"] == "too slow"
    assert told.messages[0]["figures"] == {"gate": {"p95": 9}}


def test_progress_is_told_by_steps_of_percent_or_time(told):
    told.teller.record(FETCHING)
    for done in range(1000):
        told.teller.progress("main", "fetching", done, 1000, 10.0)
    percents = [m.get("pct", 0) for m in told.messages[1:]]
    assert percents == [float(p) for p in range(0, 100, 5)]
    told.now += TELL_EVERY_S
    told.teller.progress("main", "fetching", 955, 1000, 10.0)
    assert told.messages[-1]["pct"] == 95.5
    assert told.messages[-1]["eta_s"] == 4.5


def test_a_new_step_is_told_at_once(told):
    told.teller.record(FETCHING)
    told.teller.progress("main", "a", 1, 100)
    told.teller.progress("main", "b", 1, 100)
    assert [m.get("step") for m in told.messages] == [None, "a", "b"]


def test_progress_of_nothing_is_not_told(told):
    told.teller.progress("main", "fetching", 1, 2)
    assert told.messages == []


def test_refusals_are_counted_with_the_last_reason(told):
    assert told.teller.counters() == {"refused": {}}
    told.teller.refused("assignment", "forged")
    told.teller.refused("assignment", "late")
    counters = told.teller.counters()
    assert counters["refused"] == {"assignment": 2}
    assert counters["last_refusal"] == "assignment: late"


def test_what_is_under_way_is_said_in_a_few_words_until_it_has_ended(told):
    assert told.teller.under_way() == []
    told.teller.record(FETCHING)
    assert told.teller.under_way() == ["main: fetching"]
    told.teller.progress("main", "blocks", 40, 100)
    assert told.teller.under_way() == ["main: fetching 40 %"]
    told.teller.record(Record("main", State.CANARY, counter=3))
    assert told.teller.under_way() == ["main: canary"]
    for state in (State.COMMITTED, State.REJECTED, State.ROLLED_BACK):
        told.teller.record(Record("main", state, counter=3))
        assert told.teller.under_way() == []
