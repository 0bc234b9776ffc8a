"""`vigia check --deep` against a real Mosquitto with an access list and a real camera."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.mosquitto import Mosquitto
from tests.integration.servers import RtspServer, has_rtsp_server, require
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
LIMIT_S = 150


@pytest.fixture
def camera():
    require(has_rtsp_server(), "GStreamer's RTSP server")
    server = RtspServer()
    server.start()
    yield server
    server.kill()


def check_deep(folder, port, camera, mqtt="host: 127.0.0.1", source=None):
    model = make_model(folder / "m.onnx")
    config = folder / "agent.yaml"
    config.write_text(
        f"device: {{id: d1}}\nmqtt: {{{mqtt}, port: {port}}}\n"
        f"cameras:\n  door: {{source: '{source or camera.url()}'}}\n"
        f"models:\n  main: {{path: {model}}}\n"
    )
    config.chmod(0o644)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "check", "--deep", "--json", "-c", str(config)],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(folder), "XDG_CACHE_HOME": str(folder)},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {f["name"]: f for f in json.loads(done.stdout)}, done.returncode


def test_camera_and_broker_are_looked_into(tmp_path, camera):
    with Mosquitto(tmp_path / "broker", {"open": ("allow_anonymous true",)}) as broker:
        found, code = check_deep(tmp_path, broker.port, camera)
    assert code == 0, found
    stream = found["cameras.door.stream"]["what"]
    assert "h264" in stream
    assert "key frame every" in stream
    assert found["mqtt.acl"]["status"] == "ok"
    assert "speak" not in found["mqtt.isolation"]["what"]
    assert {"wheels", "jetpack", "thermal", "memory", "disk.state", "clock"} <= set(found)
    assert all(f["fix"] for f in found.values() if f["status"] != "ok")


def test_an_access_list_is_seen_from_both_sides(tmp_path, camera):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite vigia/v1/d1/#\n")
    acl.chmod(0o700)
    listener = ("allow_anonymous true", f"acl_file {acl}")
    with Mosquitto(tmp_path / "broker", {"open": listener}) as broker:
        found, _ = check_deep(tmp_path, broker.port, camera)
    assert found["mqtt.acl"]["status"] == "ok"
    assert "cannot speak for another" in found["mqtt.isolation"]["what"]


def test_a_broker_with_tls_and_an_access_list_and_a_camera_with_a_wrong_path(
    tmp_path, camera, certificates
):
    passwords = tmp_path / "passwords"
    passwords.touch()
    command = ["mosquitto_passwd", "-b", str(passwords), "d1", "tell-nobody"]
    subprocess.run(command, check=True, capture_output=True)
    acl = tmp_path / "acl"
    acl.write_text("pattern readwrite vigia/v1/%u/#\n")
    acl.chmod(0o700)
    listener = (
        "allow_anonymous false",
        f"password_file {passwords}",
        f"acl_file {acl}",
        f"cafile {certificates.authority.file}",
        f"certfile {certificates.server.cert}",
        f"keyfile {certificates.server.key}",
    )
    ca = certificates.authority.file
    mqtt = f"host: localhost, username: d1, password: tell-nobody, tls: {{ca_file: {ca}}}"
    with Mosquitto(tmp_path / "broker", {"tls": listener}) as broker:
        source = camera.url(path="elsewhere")
        found, code = check_deep(tmp_path, broker.port, camera, mqtt, source)
    assert code == 1
    assert "TLSv1" in found["mqtt"]["what"]
    assert found["mqtt.isolation"]["status"] == "ok"
    # Those of the tests last for a day.
    assert found["mqtt.certificate"]["status"] == "warn"
    assert "manual" in found["cameras.door"]["fix"]
    # Told once, and not looked into.
    assert "cameras.door.stream" not in found
    # The password stands in a file that everybody may read.
    assert found["permissions.secrets"]["fix"].startswith("chmod o= ")
    assert all(f["fix"] for f in found.values() if f["status"] != "ok")
    assert "tell-nobody" not in json.dumps(found)
