"""Updates of a real agent over a real broker, from the assignment to the signed report."""

from __future__ import annotations

import hashlib
import signal

import pytest

from agent.bundle.seal import PAYLOAD
from agent.update.staging import FOLDER
from tests.integration.agents import STOP_S, detections, has, states, validate
from tests.integration.updates import QUICK, Fleet
from tests.vectors import conveyors

LONG_S = 60.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def fleet(tmp_path, mosquitto, prefix):
    return Fleet(tmp_path, mosquitto.port, prefix)


@pytest.fixture
def configured(tmp_path):
    return conveyors.write(tmp_path, "configured.onnx", conveyors.original())


def digest(model: bytes) -> str:
    return "sha256:" + hashlib.sha256(model).hexdigest()


def served(messages: list) -> list[str]:
    """Digests of what has made the detections, each run of equal ones once."""
    found: list[str] = []
    for message in detections(messages, "belt"):
        if found[-1:] != [message["model"]["digest"]]:
            found.append(message["model"]["digest"])
    return found


def seamless(messages: list) -> bool:
    found = detections(messages, "belt")
    return [m["seq"] for m in found] == list(range(len(found)))


def test_a_pushed_model_takes_over_without_a_gap_and_stays(fleet, configured, subscriber, agents):
    process = agents.start(fleet.config(configured))
    subscriber.wait_for(has("belt", 5), LONG_S)
    model = conveyors.retrained()
    fleet.push(
        fleet.controller.release(1, files={"model.onnx": model, **conveyors.golden(12)}, **QUICK)
    )
    messages = subscriber.wait_for(fleet.reports, LONG_S)
    (report,) = fleet.reports(messages)
    assert (report.outcome, report.reason) == ("COMMITTED", "")
    count = len(detections(messages, "belt"))
    messages = subscriber.wait_for(has("belt", count + 5), LONG_S)
    assert served(messages) == [digest(conveyors.original()), digest(model)]
    assert seamless(messages)
    signed = (fleet.topics.update_report("main"), fleet.topics.assignment)
    own = [m for m in messages if "/d1/" in m.topic and m.topic not in signed]
    validate(own)
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S) == 0
    again = agents.start(fleet.config(configured))
    seen = len(subscriber.messages)
    messages = subscriber.wait_for(lambda m: has("belt", 3)(m[seen:]), LONG_S)
    assert served(messages[seen:]) == [digest(model)]
    again.send_signal(signal.SIGTERM)
    assert again.wait(STOP_S) == 0


def test_a_committed_model_that_the_disk_has_damaged_is_told_and_brought_again(
    fleet, configured, subscriber, agents
):
    model = conveyors.retrained()
    packed = fleet.controller.release(
        1, files={"model.onnx": model, **conveyors.golden(12)}, **QUICK
    )
    process = agents.start(fleet.config(configured))
    fleet.push(packed)
    subscriber.wait_for(fleet.reports, LONG_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S) == 0
    payload = fleet.state / FOLDER / packed.digest / PAYLOAD
    with payload.open("r+b") as file:
        file.seek(100)
        file.write(b"flipped")
    seen = len(subscriber.messages)
    agents.start(fleet.config(configured))
    messages = subscriber.wait_for(lambda m: has("belt", 3)(m[seen:]), LONG_S)
    assert served(messages[seen:]) == [digest(conveyors.original())]
    messages = subscriber.wait_for(lambda m: "degraded" in states(m[seen:]), LONG_S)
    seen = len(messages)
    fleet.assign(packed)
    messages = subscriber.wait_for(lambda m: states(m[seen:])[-1:] == ["online"], LONG_S)
    messages = subscriber.wait_for(lambda m: len(fleet.reports(m)) == 2, LONG_S)
    assert {r.outcome for r in fleet.reports(messages)} == {"COMMITTED"}
    count = len(detections(messages, "belt"))
    messages = subscriber.wait_for(has("belt", count + 3), LONG_S)
    assert served(messages[seen:])[-1] == digest(model)
