"""Settings that are sent to devices: signed, kept by a real broker, answered, shown."""

import contextlib
import json

import pytest
from typer.testing import CliRunner

from agent import yamlfile
from agent.bundle.documents import MAX_SETTINGS_BYTES, SETTINGS, Settings
from agent.bundle.dsse import verify
from agent.config import MqttConfig, TlsConfig
from agent.configfile import read_fragment
from agent.errors import ConfigError
from agent.mqttlink import Link
from agent.update.desired import MAX_LIFE_S
from agent.wire.configstate import ConfigState, Refused, Version, encode_config_state
from agent.wire.topics import Topics
from fleet.commands.app import app
from fleet.commands.config import MAX_DAYS
from fleet.configuring import DAY_S, Hearing, Outcome, Sent, read_wanted, send_settings
from fleet.enrolling import revoke
from fleet.errors import FleetError
from fleet.link import Inbox
from fleet.roledata import OPERATORS, delegated_keys
from fleet.roles import Permission
from tests.fakes.fleetbroker import fleet_broker
from tests.fakes.fleetfolder import PASSPHRASE, PREFIX, enroll_new, open_fleet
from tests.fleet.test_rolloutcommands import actions, retained, told, vigia

TOPICS = Topics(PREFIX, "line-1")
DIGEST = "a" * 64


class Outlet:
    """Keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, topic, payload, *, expiry_s):
        self.sent.append((topic, payload, expiry_s))

    def settle(self):
        pass


@pytest.fixture
def ann(fleet, tmp_path):
    enroll_new(fleet, tmp_path / "devices", "line-1")
    return fleet.act(Permission.CONFIGURE)


def operators(fleet):
    return delegated_keys(fleet.repository.published().targets, OPERATORS)


def test_settings_are_signed_by_the_operator_for_one_device(fleet, ann):
    outlet = Outlet()
    sent = send_settings(fleet, ann, outlet, "line-1", {"log": {"level": "debug"}}, DAY_S)
    ((topic, envelope, expiry_s),) = outlet.sent
    document = verify(envelope, SETTINGS, Settings, operators(fleet))
    assert (topic, expiry_s) == (TOPICS.config_desired, DAY_S)
    assert (document.device, document.counter) == ("line-1", sent.counter)
    assert document.expires - document.issued == DAY_S
    assert json.loads(document.settings) == {"log": {"level": "debug"}}
    assert read_wanted(fleet, envelope).operator == "ann"
    assert [e.action for e in fleet.audit.entries()][-1] == "config.push"


def test_every_settings_have_a_greater_counter_also_those_that_clear(fleet, ann):
    outlet = Outlet()
    counters = [send_settings(fleet, ann, outlet, "line-1", {}, DAY_S).counter for _ in range(3)]
    assert counters == sorted(set(counters))
    assert [e.action for e in fleet.audit.entries()][-1] == "config.clear"


def test_devices_that_are_unknown_or_revoked_and_what_is_too_much_are_refused(fleet, ann):
    outlet = Outlet()
    with pytest.raises(FleetError, match="no device 'line-9'"):
        send_settings(fleet, ann, outlet, "line-9", {}, DAY_S)
    many = {"cameras": {"a": {"source": "rtsp://" + "x" * MAX_SETTINGS_BYTES}}}
    with pytest.raises(FleetError, match="a device takes"):
        send_settings(fleet, ann, outlet, "line-1", many, DAY_S)
    revoke(fleet, fleet.act(Permission.REVOKE), "line-1", "stolen")
    with pytest.raises(FleetError, match="revoked"):
        send_settings(fleet, ann, outlet, "line-1", {}, DAY_S)
    assert outlet.sent == []


def test_the_largest_settings_fit_into_an_envelope(fleet, ann):
    outlet = Outlet()
    room = MAX_SETTINGS_BYTES - len('{"log":{"level":""}}')
    send_settings(fleet, ann, outlet, "line-1", {"log": {"level": '"' * (room // 2)}}, DAY_S)
    assert verify(outlet.sent[0][1], SETTINGS, Settings, operators(fleet)).device == "line-1"


def test_no_settings_are_valid_for_longer_than_devices_allow():
    assert MAX_DAYS * DAY_S <= MAX_LIFE_S


@pytest.fixture
def hearing():
    seconds = iter(range(1000))
    return Hearing(PREFIX, "line-1", lambda: float(next(seconds)))


def says(inbox, state):
    payload = encode_config_state("line-1", "b1", state, ts=1.0)
    inbox.put(TOPICS.config_state, payload)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (
            ConfigState("applied", "", ("pipeline",), Version(7, DIGEST)),
            Outcome(True, "applied", "", ("pipeline",)),
        ),
        (
            ConfigState("partly", "model main: no memory", (), Version(7, DIGEST)),
            Outcome(True, "partly", "model main: no memory"),
        ),
        (
            ConfigState("applied", not_taken=Refused("fps: no", Version(7, DIGEST))),
            Outcome(False, "applied", "fps: no"),
        ),
        (ConfigState("applied", desired=Version(6, DIGEST)), Outcome(None, "applied")),
        (
            ConfigState("applied", not_taken=Refused("nobody signed it")),
            Outcome(None, "applied", "nobody signed it"),
        ),
        (
            ConfigState("applied", not_taken=Refused("older ones", Version(6, DIGEST))),
            Outcome(None, "applied"),
        ),
    ],
)
def test_what_a_device_says_of_settings(hearing, state, outcome):
    inbox = Inbox(PREFIX)
    says(inbox, state)
    assert hearing.outcome(inbox, Sent(7, DIGEST), 3.0) == outcome


def test_a_device_that_says_nothing_or_nonsense_has_not_answered(hearing):
    inbox = Inbox(PREFIX)
    for payload in (b"", b"{", b'{"schema": "vigia.event/1"}'):
        inbox.put(TOPICS.config_state, payload)
    assert hearing.outcome(inbox, Sent(7, DIGEST), 3.0) == Outcome()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt: {host: x}", "mqtt.host: comes from the device's own file only"),
        ("cameras: {door: {fps: -1}}", "f.yaml:1: cameras.door.fps: must be more than 0"),
        ("cameras:\n  door:\n    fsp: 1", "cameras.door.fsp: unknown key"),
        ("log: {level: loud}", "f.yaml:1: log.level: must be"),
        ("log: {level: info}\nlog: {level: info}", "log: is there twice"),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(tmp_path, text, said):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_fragment(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "cameras: {door: {fps: 5, model: small}}\nmodels: {main: {confidence: 0.5}}",
        "cameras: {door: {model: small}}",
        "models: {small: {confidence: 0.5}}",
        "log: {level: debug}",
        "cameras: {door: {enabled: false}}",
    ],
)
def test_a_file_may_say_only_what_differs(tmp_path, text):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    assert read_fragment(path) == yamlfile.read(path).values


@pytest.fixture
def folder(fleet_template, tmp_path, monkeypatch):
    monkeypatch.setenv("VIGIA_FLEET_PASSPHRASE", PASSPHRASE)
    with fleet_broker(fleet_template, tmp_path / "fleet") as place:
        yield place


@contextlib.contextmanager
def device_that_says(folder, tmp_path, say):
    """An enrolled device that answers each of its settings with what `say` gives for them."""
    with open_fleet(folder) as fleet:
        device, answer = enroll_new(fleet, tmp_path / "devices", "line-1")
        keys = operators(fleet)
    tls = TlsConfig(**device.tls_files(answer))
    link = Link(MqttConfig(host="127.0.0.1", port=answer.port, tls=tls), "vigia-line-1")

    def hear(_topic, payload):
        state = say(verify(payload, SETTINGS, Settings, keys))
        told_ = encode_config_state("line-1", "b1", state, ts=1.0)
        link.publish(TOPICS.config_state, told_, qos=1, retain=True)

    link.subscribe(TOPICS.config_desired, hear, qos=1)
    link.start()
    try:
        assert link.wait_connected(10)
        yield
    finally:
        link.close(1)


@pytest.fixture
def fragment(tmp_path):
    path = tmp_path / "line-1.yaml"
    path.write_text(
        "cameras:\n  gate: {source: 'rtsp://10.0.0.7/1'}\npipeline: {queue_frames: 8}\n"
    )
    return path


def test_push_show_and_clear(folder, tmp_path, fragment):
    def say(settings):
        version = Version(settings.counter, DIGEST, settings.settings == "{}")
        return ConfigState("applied", "", ("pipeline",), version)

    with device_that_says(folder, tmp_path, say):
        out = told("config", "push", folder, "line-1", fragment)
        assert (out["taken"], out["state"], out["restart"]) == (True, "applied", ["pipeline"])
        shown = told("config", "show", folder, "line-1")
        assert shown["desired"]["settings"]["pipeline"] == {"queue_frames": "8"}
        assert shown["desired"]["operator"] == "ann"
        assert shown["state"]["desired"]["counter"] == out["counter"]
        text = vigia("config", "show", folder, "line-1")
        assert "signed by ann" in text
        assert "rtsp://10.0.0.7/1" in text
        assert "with a restart: pipeline" in text
        assert "in force (applied)" in vigia("config", "clear", folder, "line-1", "--yes")
        assert "none: its own file alone counts" in vigia("config", "show", folder, "line-1")
    assert actions(folder)[-2:] == ["config.push", "config.clear"]


def test_what_a_device_does_not_take_is_told_with_exit_code_1(folder, tmp_path, fragment):
    def say(settings):
        return ConfigState("applied", not_taken=Refused("no!", Version(settings.counter, DIGEST)))

    with device_that_says(folder, tmp_path, say):
        out = vigia("config", "push", folder, "line-1", fragment, code=1)
    assert "line-1: not taken: no!" in out


def test_a_device_that_is_away_finds_its_settings_at_the_broker(folder, tmp_path, fragment):
    with open_fleet(folder) as fleet:
        enroll_new(fleet, tmp_path / "devices", "line-1")
    out = vigia("config", "push", folder, "line-1", fragment, "--wait", "0.2", code=1)
    assert "no answer; it takes them when it is back" in out
    vigia("config", "push", folder, "line-1", fragment, "--wait", "0")
    assert TOPICS.config_desired in retained(folder)
    assert told("config", "show", folder, "line-1", "--wait", "1")["state"] is None


def test_a_file_with_a_mistake_is_not_sent(folder, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("device: {id: other}")
    words = ["config", "push", str(folder), "line-1", str(path)]
    assert isinstance(CliRunner().invoke(app, words).exception, ConfigError)
    assert TOPICS.config_desired not in retained(folder)


def test_who_does_not_agree_clears_nothing(folder):
    words = ["config", "clear", str(folder), "line-1"]
    assert CliRunner().invoke(app, words, input="n\n").exit_code == 1


def test_restart_is_a_signed_command(folder, tmp_path):
    with open_fleet(folder) as fleet:
        enroll_new(fleet, tmp_path / "devices", "line-1")
    out = vigia("restart", folder, "--device", "line-1", "--wait", "0.2", code=1)
    assert out == "line-1: no answer\n"
    assert actions(folder)[-1] == "command.restart"
