"""Settings that an operator sends to a real agent by a real broker."""

from __future__ import annotations

import json
import signal

import pytest
import yaml
from typer.testing import CliRunner

from fleet import controlling
from fleet.commands.app import app
from fleet.link import Outlet
from tests.fakes.fleetbroker import fleet_broker
from tests.fakes.fleetfolder import (
    PASSPHRASE,
    PREFIX,
    enroll_new,
    found_fleet,
    open_fleet,
    remembered_derivations,
)
from tests.integration.agents import SOON_S, detections, has, settings, validate
from tests.integration.updates import Fleet


def scene(fps: int = 20, **more: object) -> dict:
    return {"source": f"synthetic://64x48@{fps}", **more}


def told(messages) -> list[dict]:
    return [m.json for m in messages if m.topic.endswith("/d1/config/state")]


def takes(counter: int):
    def fits(messages):
        return any(m.get("desired", {}).get("counter") == counter for m in told(messages))

    return fits


def refuses(counter: int | None):
    def fits(messages):
        found = [m["not_taken"] for m in told(messages) if "not_taken" in m]
        return any(refused.get("counter") == counter for refused in found)

    return fits


@pytest.fixture
def fleet(tmp_path, mosquitto, prefix):
    fleet = Fleet(tmp_path / "fleet", mosquitto.ports["plain"], prefix)
    fleet.publish({fleet.fleet.trust: fleet.controller.trust()})
    return fleet


def test_a_camera_is_added_from_afar_and_a_bad_one_changes_nothing(
    agents, subscriber, fleet, model, tmp_path
):
    process = agents.start(fleet.config(model, {"a": scene(), "b": scene()}))
    path = next(tmp_path.rglob("agent0.yaml"))
    subscriber.wait_for(has("b", 10), SOON_S)

    def send(settings: object, **changes: object) -> int:
        envelope = fleet.controller.desired(settings, **changes)
        fleet.publish({fleet.topics.config_desired: envelope})
        return fleet.controller.counter

    # One more camera, and another threshold than the file's.
    wanted = {"cameras": {"c": scene()}, "governor": {"margin_c": 9}, "log": {"level": "debug"}}
    first = send(wanted)
    messages = subscriber.wait_for(takes(first), SOON_S)
    assert (told(messages)[-1]["state"], told(messages)[-1]["source"]) == ("applied", "desired")
    assert "restart" not in told(messages)[-1]
    subscriber.wait_for(has("c", 10), SOON_S)

    # One that cannot be, one that must not come from afar, one that nobody signed.
    second = send({"cameras": {"c": scene(fps=-3)}, "pipeline": {"queue_frames": 0}})
    messages = subscriber.wait_for(refuses(second), SOON_S)
    assert "pipeline.queue_frames" in told(messages)[-1]["not_taken"]["reason"]
    third = send({"mqtt": {"host": "elsewhere"}})
    messages = subscriber.wait_for(refuses(third), SOON_S)
    assert "mqtt.host: comes from" in told(messages)[-1]["not_taken"]["reason"]
    send({"cameras": {}}, signers=fleet.controller.repository.keys["director"])
    subscriber.wait_for(refuses(None), SOON_S)
    state = told(subscriber.messages)[-1]
    assert (state["state"], state["desired"]["counter"]) == ("applied", first)
    for name in ("a", "b", "c"):
        count = len(detections(subscriber.messages, name))
        subscriber.wait_for(has(name, count + 10), SOON_S)

    # A reload of the file keeps them; a restart too.
    local = yaml.safe_load(path.read_text())
    del local["cameras"]["b"]
    path.write_text(yaml.safe_dump(local))
    before = len(told(subscriber.messages))
    process.send_signal(signal.SIGHUP)
    messages = subscriber.wait_for(lambda all_: len(told(all_)) > before, SOON_S)
    assert told(messages)[-1]["source"] == "desired"
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    count = len(detections(subscriber.messages, "c"))
    process = agents.again(path)
    subscriber.wait_for(has("c", count + 10), SOON_S)
    assert told(subscriber.messages)[-1]["desired"]["counter"] == first

    # The others were never touched: their messages go on without a gap.
    for name in ("a", "c"):
        found = detections(subscriber.messages, name)
        seqs = [m["seq"] for m in found if m["boot"] == found[0]["boot"]]
        assert seqs == list(range(len(seqs)))

    # Back to the file.
    last = send({})
    messages = subscriber.wait_for(takes(last), SOON_S)
    assert told(messages)[-1]["source"] == "file"
    gone = [m.json for m in messages if m.topic.endswith("/cam/c/status")][-1]
    assert gone["state"] == "disabled"
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    validate([m for m in subscriber.messages if m.payload and m.topic.endswith("/config/state")])
    assert "Traceback" not in agents.log()


def test_settings_that_waited_at_the_broker_are_taken_at_the_start(
    agents, subscriber, fleet, model
):
    envelope = fleet.controller.desired({"cameras": {"c": scene()}})
    fleet.publish({fleet.topics.config_desired: envelope})
    process = agents.start(fleet.config(model, {"a": scene()}))
    subscriber.wait_for(has("c", 5), SOON_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0


def test_an_operator_pushes_settings_to_an_enrolled_agent_through_the_fleets_own_broker(
    agents, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIGIA_FLEET_PASSPHRASE", PASSPHRASE)
    fragment = tmp_path / "d1.yaml"
    fragment.write_text(
        "cameras: {c: {source: 'synthetic://64x48@20'}}\npipeline: {queue_frames: 9}"
    )
    with remembered_derivations():
        template = found_fleet(tmp_path / "template")
        with fleet_broker(template, tmp_path / "fleet") as folder:
            with open_fleet(folder) as fleet:
                device, answer = enroll_new(fleet, tmp_path / "devices", "d1")
                publish_metadata(fleet)
            (device.folder / "root.json").write_bytes(answer.root.encode())
            config = settings(answer.port, PREFIX, model, {"a": scene()})
            config["mqtt"]["tls"] = {k: str(v) for k, v in device.tls_files(answer).items()}
            config["updates"] = {"state_dir": str(device.folder)}
            process = agents.start(config)

            def fleet_config(*words: object) -> dict:
                told_ = CliRunner().invoke(app, ["config", *map(str, words), "--json"])
                return {"exit": told_.exit_code, **json.loads(told_.stdout)}

            out = fleet_config("push", folder, "d1", fragment, "--wait", SOON_S)
            assert (out["exit"], out["taken"], out["restart"]) == (0, True, ["pipeline"])
            fragment.write_text("cameras: {a: {model: other}}")
            out = fleet_config("push", folder, "d1", fragment, "--wait", SOON_S)
            assert (out["exit"], out["taken"]) == (1, False)
            assert "cameras.a.model: no such model" in out["reason"]
            words = ["restart", str(folder), "--device", "d1", "--wait", str(SOON_S)]
            assert CliRunner().invoke(app, words).exit_code == 0
            assert process.wait(SOON_S) == 75
            process = agents.again(tmp_path / "agent0.yaml")
            out = fleet_config("clear", folder, "d1", "--yes", "--wait", SOON_S)
            assert (out["exit"], out["taken"], out["restart"]) == (0, True, ["pipeline"])
            assert fleet_config("show", folder, "d1")["state"]["source"] == "file"
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == 0


def publish_metadata(fleet) -> None:
    with Outlet(fleet.mqtt) as outlet:
        controlling.publish_metadata(fleet, outlet)
