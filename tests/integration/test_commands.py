"""`vigia watch` and `vigia check` as processes, against a real Mosquitto."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from agent.config import MqttConfig
from agent.mqttlink import Link
from agent.wire import messages
from agent.wire.schema import schema
from agent.wire.topics import Topics
from tests.fakes.frames import frame, result
from tests.integration.conftest import PASSWORD, USER
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
LIMIT_S = 30
BETWEEN_S = 0.05


def start(*arguments, **environ):
    return subprocess.Popen(
        [sys.executable, "-m", "agent", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
    )


def found(seq):
    made = result(frame("door", seq))
    return dataclasses.replace(
        made,
        model=dataclasses.replace(made.model, backend="onnxruntime", digest="sha256:" + "0" * 64),
    )


def publish_until_it_ends(process, port, prefix):
    """Publish detections of camera `door` until the process has seen enough."""
    link = Link(MqttConfig(host="127.0.0.1", port=port, prefix=prefix), f"publisher-{prefix}")
    link.start()
    try:
        assert link.wait_connected(LIMIT_S), link.reason
        topic = Topics(prefix, "d1").detections("door")
        deadline = time.monotonic() + LIMIT_S
        seq = 0
        while process.poll() is None:
            assert time.monotonic() < deadline
            payload = messages.encode_detections(found(seq), "d1", "b1", seq, 0)
            link.publish(topic, b"garbage" if seq % 2 else payload, qos=0)
            seq += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(BETWEEN_S)
    finally:
        link.close(2)


def test_watch_prints_messages_as_they_were_published(mosquitto, prefix):
    port = mosquitto.ports["plain"]
    with start(
        "watch", "--host", "127.0.0.1", "--port", port, "--prefix", prefix, "--json", "--count", 3
    ) as process:
        publish_until_it_ends(process, port, prefix)
        lines = process.stdout.read().splitlines()
        assert process.returncode == 0, process.stderr.read()
    assert len(lines) == 3
    for line in lines:
        message = json.loads(line)
        jsonschema.validate(message, schema(message["schema"]))
        assert (message["device"], message["cam"]) == ("d1", "door")


def test_watch_takes_broker_and_password_of_the_agents_file(mosquitto, prefix, tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(
        f"mqtt: {{host: 127.0.0.1, port: {mosquitto.ports['password']}, prefix: {prefix},"
        f' username: {USER}, password: "${{env:PW}}"}}\ncameras: {{door: {{source: 0}}}}\n'
    )
    with start("watch", "-c", path, "--count", 1, PW=PASSWORD) as process:
        with start(
            "watch", "--host", "127.0.0.1", "--port", mosquitto.ports["password"], "--username",
            USER, "--prefix", prefix, "--count", 1, VIGIA_MQTT_PASSWORD=PASSWORD,
        ) as second:  # fmt: skip
            for waiting in (process, second):
                publish_until_it_ends(waiting, mosquitto.ports["plain"], prefix)
            assert second.returncode == 0, second.stderr.read()
        assert process.returncode == 0, process.stderr.read()
        assert process.stdout.read().startswith("d1 door #")


def test_watch_ends_by_itself_when_time_is_over(mosquitto, prefix):
    port = mosquitto.ports["plain"]
    arguments = ("--host", "127.0.0.1", "--port", port, "--prefix", prefix, "--seconds", 0.1)
    with start("watch", *arguments) as process:
        assert process.wait(LIMIT_S) == 0
        assert process.stdout.read() == ""


def test_watch_tells_a_wrong_password_in_one_line(mosquitto, prefix):
    port = mosquitto.ports["password"]
    with start(
        "watch", "--host", "127.0.0.1", "--port", port, "--username", USER, "--prefix", prefix,
        VIGIA_MQTT_PASSWORD="wr0ng",
    ) as process:  # fmt: skip
        assert process.wait(LIMIT_S) == 2
        (line,) = process.stderr.read().splitlines()
    assert line.startswith("error: ")
    assert "wr0ng" not in line


@pytest.fixture
def checked(mosquitto, prefix, tmp_path):
    """Run `vigia check` with settings of the broker; gives its findings and exit code."""
    make_model(tmp_path / "m.onnx")

    def checked(listener, **settings):
        mqtt = {"host": "127.0.0.1", "port": mosquitto.ports[listener], "prefix": prefix}
        path = tmp_path / "agent.yaml"
        document = {
            "mqtt": {**mqtt, **settings},
            "cameras": {"a": {"source": "synthetic://64x64@30"}},
            "models": {"main": {"path": "m.onnx"}},
        }
        path.write_text(json.dumps(document))
        with start("check", "-c", path, "--json", PW=PASSWORD) as process:
            out, err = process.communicate(timeout=LIMIT_S)
        return {f["name"]: f for f in json.loads(out)}, process.returncode, out + err

    return checked


def test_check_of_a_right_configuration_finds_all_well(checked):
    findings, code, said = checked("password", username=USER, password="${env:PW}")
    assert code == 0, said
    assert {f["status"] for f in findings.values()} == {"ok"}
    assert PASSWORD not in said


@pytest.mark.parametrize("settings", [{"username": USER, "password": "wr0ng"}, {}])
def test_check_finds_a_login_that_fails(checked, settings):
    findings, code, said = checked("password", **settings)
    assert code == 1
    assert findings["mqtt"]["status"] == "fail"
    assert findings["mqtt"]["fix"]
    assert findings["cameras.a"]["status"] == "ok"
    assert "wr0ng" not in said


def test_check_finds_an_expired_certificate(checked, certificates):
    findings, code, _ = checked("expired", tls={"ca_file": str(certificates.authority.file)})
    assert code == 1
    assert "expired" in findings["mqtt"]["what"]
