"""The whole agent as a process: `vigia run` between real cameras and a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml

from agent.wire.schema import schema
from tests.integration.agents import (
    CONVEYOR,
    ROOT,
    SOON_S,
    STOP_S,
    assert_account,
    detections,
    has,
    settings,
    states,
    validate,
)
from tests.integration.conftest import PASSWORD, USER
from tests.integration.servers import RtspServer, has_rtsp_server, require
from tests.integration.subscriber import Subscriber, until


def test_the_example_runs_over_tls_with_a_password_and_says_goodbye(
    agents, mosquitto, subscriber, prefix, certificates
):
    config = yaml.safe_load((CONVEYOR / "agent.yaml").read_text())
    config["device"] = {"id": "d1"}
    config["mqtt"].update(
        {
            "port": mosquitto.ports["tls"],
            "prefix": prefix,
            "telemetry_interval_s": 1,
            "tls": {"ca_file": str(certificates.authority.file)},
            "username": USER,
            "password": "${env:SECRET}",
        }
    )
    config["cameras"]["belt"]["source"] = str(CONVEYOR / "sample.mp4")
    config["models"]["main"]["path"] = str(CONVEYOR / "conveyor-n.onnx")
    process = agents.start(config, SECRET=PASSWORD)
    subscriber.wait_for(has("belt", 40), SOON_S)
    subscriber.wait_for(lambda all_: any(m.topic.endswith("/telemetry") for m in all_), SOON_S)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    assert time.monotonic() - began < STOP_S
    messages = subscriber.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
    validate(messages)
    kinds = {m.json["schema"] for m in messages}
    assert kinds == {
        "vigia.detections/1", "vigia.status/1", "vigia.info/1", "vigia.telemetry/1",
        "vigia.camera-status/1", "vigia.model-state/1", "vigia.event/1", "vigia.config-state/1",
    }  # fmt: skip
    assert states(messages) == ["online", "stopping", "offline"]
    found = detections(messages, "belt")
    assert_account(found)
    assert sum(len(m["objects"]) for m in found) > 2 * len(found)
    telemetry = [m.json for m in messages if m.topic.endswith("/telemetry")]
    assert telemetry[-1]["publisher"]["published"] == len(found)
    assert PASSWORD not in agents.log()


def test_an_agent_that_is_killed_is_offline_by_its_will(agents, mosquitto, prefix, model):
    cameras = {"scene": {"source": "synthetic://64x48@30"}}
    process = agents.start(settings(mosquitto.ports["plain"], prefix, model, cameras))
    with Subscriber(mosquitto.ports["plain"], f"{prefix}/#") as reader:
        reader.wait_for(lambda all_: states(all_) == ["online"], SOON_S)
        reader.wait_for(has("scene", 3), SOON_S)
        process.send_signal(signal.SIGKILL)
        reader.wait_for(lambda all_: states(all_) == ["online", "offline"], SOON_S)
    with Subscriber(mosquitto.ports["plain"], f"{prefix}/d1/status") as later:
        assert [m.json["state"] for m in later.wait_count(1)] == ["offline"]


def test_a_file_is_published_whole_and_the_agent_ends(agents, mosquitto, subscriber, prefix, model):
    cameras = {"clip": {"source": "synthetic://64x48@30?frames=400"}}
    process = agents.start(settings(mosquitto.ports["plain"], prefix, model, cameras))
    assert process.wait(SOON_S) == 0
    messages = subscriber.wait_for(has("clip", 400), SOON_S)
    assert_account(detections(messages, "clip"), 400)
    last = [m.json for m in messages if m.topic.endswith("/cam/clip/status")][-1]
    assert last["state"] == "ended"


def test_a_broker_that_is_killed_under_load_costs_nothing_but_what_the_outbox_cannot_hold(
    agents, own_mosquitto, prefix, model
):
    broker = own_mosquitto()
    cameras = {"scene": {"source": "synthetic://64x48@100"}}
    config = settings(broker.port, prefix, model, cameras, outbox_messages=50)
    process = agents.start(config)
    with Subscriber(broker.port, f"{prefix}/#", qos=1) as reader:
        reader.wait_for(has("scene", 50), SOON_S)
        broker.kill()
        pause(2.0)
        broker.start()
        reader.wait_subscribed(SOON_S)
        count = len(detections(reader.messages, "scene"))
        reader.wait_for(has("scene", count + 200), SOON_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 0
        reader.wait_for(lambda all_: states(all_)[-1] == "offline", SOON_S)
        messages = list(reader.messages)
    telemetry = [m.json for m in messages if m.topic.endswith("/telemetry")]
    drops = telemetry[-1]["publisher"]["dropped"]
    assert drops["outbox"] > 20
    found = {m["seq"]: m for m in detections(messages, "scene")}
    # The reader was away too, and QoS 1 may deliver twice: gaps only where the broker was dead.
    gap = max(b - a for a, b in pairwise(sorted(found)))
    assert gap <= 150
    after = [m for seq, m in sorted(found.items()) if m["dropped"] > 20]
    # None where the agent was back before the reader.
    assert len(after) <= 1
    # The last one counts the time of stopping too.
    assert max(t["cameras"]["scene"]["fps"] for t in telemetry) > 50


def pause(seconds: float) -> None:
    """Let time pass on purpose: an outage has a length."""
    deadline = time.monotonic() + seconds
    until(lambda: time.monotonic() >= deadline, seconds + 1)


def test_a_camera_that_dies_does_not_touch_another(agents, mosquitto, subscriber, prefix, model):
    require(has_rtsp_server(), "GStreamer's RTSP server with Python bindings")
    server = RtspServer()
    server.start()
    try:
        cameras = {
            "street": {"source": server.url(), "stall_timeout_s": 2, "reconnect_max_s": 0.5},
            "scene": {"source": "synthetic://64x48@30"},
        }
        process = agents.start(settings(mosquitto.ports["plain"], prefix, model, cameras))
        subscriber.wait_for(has("street", 10), SOON_S)
        server.kill()
        topic = f"{prefix}/d1/cam/street/status"
        subscriber.wait_for(
            lambda all_: any(
                m.topic == topic and "refused" in m.json.get("reason", "") for m in all_
            ),
            SOON_S,
        )
        before = len(subscriber.on(f"{prefix}/d1/cam/street/detections"))
        server.start()
        messages = subscriber.wait_for(has("street", before + 10), SOON_S)
    finally:
        server.kill()
    process.send_signal(signal.SIGTERM)
    assert process.wait(SOON_S) == 0
    street, scene = (detections(messages, name) for name in ("street", "scene"))
    assert [m["seq"] for m in street] == list(range(len(street)))
    assert_account(scene)
    times = [m["ts"] for m in scene]
    assert max(b - a for a, b in pairwise(times)) < 0.5
    assert states(subscriber.messages)[-1] in ("stopping", "offline")


def test_two_models_one_missing_is_degraded_and_the_other_serves(
    agents, mosquitto, subscriber, prefix, model, tmp_path
):
    cameras = {
        "good": {"source": "synthetic://64x48@30"},
        "bad": {"source": "synthetic://64x48@30", "model": "absent"},
    }
    config = settings(mosquitto.ports["plain"], prefix, model, cameras)
    late = tmp_path / "late.onnx"
    config["models"]["absent"] = {"path": str(late), "threads": 1}
    agents.start(config)
    subscriber.wait_for(has("good", 10), SOON_S)
    subscriber.wait_for(lambda all_: "degraded" in states(all_), SOON_S)
    late.write_bytes(model.read_bytes())
    messages = subscriber.wait_for(has("bad", 3), SOON_S)
    subscriber.wait_for(lambda _: subscriber.on(f"{prefix}/d1/model/absent/state"), SOON_S)
    subscriber.wait_for(lambda all_: states(all_)[-1] == "online", SOON_S)
    validate(messages)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["cameras"].update(scene={"sourse": "0"}), "did you mean 'source'?"),
        (lambda c: c["models"]["main"].update(path="missing.onnx"), "missing.onnx"),
        (lambda c: c["models"]["main"].update(classes=["nobody"]), "no class 'nobody'"),
        (lambda c: c["mqtt"].update(tls={"ca_file": "missing.pem"}), "missing.pem"),
        (lambda c: c["cameras"]["scene"].update(enabled=False), "enable one"),
        (lambda c: c["models"]["main"].update(providers=["Nonsense"]), "Nonsense"),
    ],
)
def test_a_mistake_ends_at_once_with_code_2_and_words(agents, model, change, said):
    config = settings(1, "p", model, {"scene": {"source": "synthetic://64x48@30"}})
    change(config)
    process = agents.start(config)
    assert process.wait(SOON_S) == 2
    log = agents.log()
    assert said in log
    assert "Traceback" not in log


def test_detect_prints_the_wire_schema_and_saves_a_picture(tmp_path: Path):
    video, out = CONVEYOR / "sample.mp4", tmp_path / "out.png"
    command = ["detect", CONVEYOR / "conveyor-n.onnx", video, "--limit", "5", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "agent", *map(str, command), "--save", str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["frame"]["id"] for line in lines] == list(range(5))
    for line in lines:
        jsonschema.validate(line, schema("vigia.detections/1"))
    assert out.stat().st_size > 1000
