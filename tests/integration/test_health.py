"""`vigia run` under a service manager that listens: READY, STATUS, WATCHDOG; engines that hang."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.agents import SOON_S, detections, settings
from tests.integration.notifysocket import WATCHDOG_S, Manager

STALL_S = 2.0


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def events(messages, kind):
    found = (m.json for m in messages if m.topic.endswith("/d1/events"))
    return [event for event in found if event["kind"] == kind]


@pytest.fixture
def config(mosquitto, prefix, model):
    config = settings(
        mosquitto.ports["plain"], prefix, model, {"scene": {"source": "synthetic://64x48@10"}}
    )
    config["health"] = {"ready_timeout_s": 10, "stall_timeout_s": STALL_S, "exit_after_s": 1}
    return config


def test_ready_after_the_first_result_then_fed_then_stopping(agents, config, manager):
    process = agents.start(config, **manager.environ())
    manager.wait("READY=1")
    manager.wait("WATCHDOG=1", WATCHDOG_S)
    manager.wait("STATUS=serving 1 camera at ")
    process.send_signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert process.wait(SOON_S) == 0
    manager.drain()
    told = [line for line in manager.heard if line.startswith("STATUS=")]
    # Without a broker yet there can be one line that says so.
    told = [line for line in told if "degraded: no broker" not in line]
    ready = told.index("STATUS=ready")
    assert told[0] == "STATUS=starting: loading models"
    assert set(told[1:ready]) <= {"STATUS=starting: waiting for the first result of scene"}
    assert told[ready + 1 : -1]
    assert all(line.startswith("STATUS=serving 1 camera at ") for line in told[ready + 1 : -1])
    assert told[-1] == "STATUS=stopping: what waits is analysed, sent or kept"


def test_ready_names_the_camera_that_gives_nothing(agents, config, manager):
    config["cameras"]["gone"] = {"source": "rtsp://127.0.0.1:9/none"}
    agents.start(config, **manager.environ())
    manager.wait("READY=1")
    line, _ = manager.wait("STATUS=serving 1 of 2 cameras at ")
    assert "degraded: gone:" in line


def test_a_hanging_engine_is_told_given_up_and_loaded_anew(agents, config, manager, subscriber):
    process = agents.start(config, VIGIA_STALLPOINT="infer:15", **manager.environ())
    manager.wait("READY=1")

    def recovered(messages):
        return any(e["data"].get("action") == "over" for e in events(messages, "recovery"))

    messages = subscriber.wait_for(recovered, SOON_S)
    (stall,) = events(messages, "stall")
    assert stall["data"]["stage"] == "model main"
    assert STALL_S <= stall["data"]["age_s"] < STALL_S + 2
    assert any("stallpoint.py" in c for s in stall["data"]["stacks"].values() for c in s)
    count = len(detections(messages, "scene"))
    subscriber.wait_for(lambda m: len(detections(m, "scene")) >= count + 20, SOON_S)
    assert process.poll() is None
    found = detections(subscriber.wait_for(lambda _: True, SOON_S), "scene")
    # The frame that hung is told as dropped: the account holds.
    assert [m["seq"] for m in found] == list(range(len(found)))
    assert sum(1 + m["dropped"] for m in found) == found[-1]["frame"]["id"] + 1


def test_a_process_that_stands_still_feeds_nothing_and_goes_on_without_blaming_a_stage(
    agents, config, manager, subscriber
):
    process = agents.start(config, **manager.environ())
    manager.wait("READY=1")
    process.send_signal(signal.SIGSTOP)
    manager.drain()
    with pytest.raises(AssertionError, match="no WATCHDOG=1"):
        manager.wait("WATCHDOG=1", STALL_S + 3)
    os.kill(process.pid, signal.SIGCONT)
    manager.wait("WATCHDOG=1")
    assert process.poll() is None
    assert events(subscriber.wait_for(lambda _: True, SOON_S), "stall") == []
