"""SIGHUP on a real agent with a real broker."""

from __future__ import annotations

import itertools
import signal
import socket

import yaml

from tests.integration.agents import (
    SOON_S,
    assert_account,
    detections,
    has,
    settings,
    states,
    validate,
)


def config_states(messages) -> list[dict]:
    return [m.json for m in messages if m.topic.endswith("/d1/config/state")]


def tells(state: str, count: int = 1):
    return lambda all_: len([m for m in config_states(all_) if m["state"] == state]) >= count


def scene(fps: int = 30) -> dict:
    return {"source": f"synthetic://64x48@{fps}"}


def test_cameras_and_thresholds_change_and_nobody_else_notices(
    agents, mosquitto, subscriber, prefix, model, tmp_path
):
    wanted = settings(mosquitto.ports["plain"], prefix, model, {"a": scene(), "b": scene()})
    process = agents.start(wanted)
    path = next(tmp_path.rglob("agent0.yaml"))
    subscriber.wait_for(has("b", 20), SOON_S)
    subscriber.wait_for(tells("applied"), SOON_S)

    def reload(text: str) -> None:
        path.write_text(text)
        process.send_signal(signal.SIGHUP)

    # One changes, one comes; the broker's address would be one for a restart.
    wanted["cameras"] = {"a": scene(), "b": scene(20), "c": scene()}
    wanted["mqtt"]["keepalive_s"] = 7
    reload(yaml.safe_dump(wanted))
    messages = subscriber.wait_for(tells("applied", 2), SOON_S)
    assert config_states(messages)[-1]["restart"] == ["mqtt"]
    subscriber.wait_for(has("c", 20), SOON_S)
    subscriber.wait_for(has("b", len(detections(subscriber.messages, "b")) + 20), SOON_S)

    # A mistake changes nothing.
    reload("cameras: [")
    messages = subscriber.wait_for(tells("refused"), SOON_S)
    count = len(detections(messages, "a"))
    subscriber.wait_for(has("a", count + 20), SOON_S)

    # A threshold that nothing passes, and a camera less.
    wanted["models"]["main"]["confidence"] = 1.0
    del wanted["cameras"]["c"]
    reload(yaml.safe_dump(wanted))
    subscriber.wait_for(tells("applied", 3), SOON_S)
    count = len(detections(subscriber.messages, "a"))
    subscriber.wait_for(has("a", count + 10), SOON_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    messages = subscriber.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
    validate([m for m in messages if m.payload])
    for name in ("a", "c"):
        assert_account(detections(messages, name))
    # The one that changed is opened anew, once: its frames are counted anew, its messages go on.
    changed = detections(messages, "b")
    assert [m["seq"] for m in changed] == list(range(len(changed)))
    frames = [m["frame"]["id"] for m in changed]
    assert sum(after < before for before, after in itertools.pairwise(frames)) == 1
    found = detections(messages, "a")
    assert sum(m["dropped"] for m in found) <= len(found) // 10
    assert found[-1]["objects"] == []
    last = [m.json for m in messages if m.topic.endswith("/cam/c/status")][-1]
    assert last["state"] == "disabled"
    assert "Traceback" not in agents.log()


def test_an_agent_with_a_mistake_in_its_file_goes_on_with_the_last_good_copy(
    agents, mosquitto, subscriber, prefix, model, tmp_path
):
    wanted = settings(mosquitto.ports["plain"], prefix, model, {"a": scene()})
    process = agents.start(wanted)
    path = next(tmp_path.rglob("agent0.yaml"))
    subscriber.wait_for(tells("applied"), SOON_S)
    subscriber.wait_for(has("a", 20), SOON_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    path.write_text(path.read_text().replace("source:", "sauce:"))
    process = agents.again(path)
    messages = subscriber.wait_for(tells("recovered"), SOON_S)
    assert "sauce" in config_states(messages)[-1]["reason"]
    count = len(detections(messages, "a"))
    subscriber.wait_for(has("a", count + 10), SOON_S)
    subscriber.wait_for(lambda all_: states(all_)[-1] == "degraded", SOON_S)
    path.write_text(path.read_text().replace("sauce:", "source:"))
    process.send_signal(signal.SIGHUP)
    subscriber.wait_for(tells("applied", 2), SOON_S)
    subscriber.wait_for(lambda all_: states(all_)[-1] == "online", SOON_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0


def test_a_service_without_any_good_configuration_says_so_and_starts_anew_once_it_is_right(
    agents, mosquitto, subscriber, prefix, model, tmp_path
):
    wanted = settings(mosquitto.ports["plain"], prefix, model, {"a": scene()})
    wanted["cameras"]["a"]["sauce"] = 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        process = agents.start(wanted, NOTIFY_SOCKET=str(tmp_path / "notify"))
        path = next(tmp_path.rglob("agent0.yaml"))
        messages = subscriber.wait_for(tells("control"), SOON_S)
        assert "sauce" in config_states(messages)[-1]["reason"]
        subscriber.wait_for(lambda all_: states(all_)[-1:] == ["degraded"], SOON_S)
        # Telemetry is what shows that the event loop listens to signals.
        subscriber.wait_for(lambda all_: any(m.topic.endswith("/telemetry") for m in all_), SOON_S)
        process.send_signal(signal.SIGHUP)
        subscriber.wait_for(tells("control", 2), SOON_S)
        del wanted["cameras"]["a"]["sauce"]
        path.write_text(yaml.safe_dump(wanted))
        process.send_signal(signal.SIGHUP)
        assert process.wait(SOON_S) == 75
    assert "Traceback" not in agents.log()
