"""Support bundles: bounded, redacted, honest about what they took; logs and status for people."""

import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent import supportbundle, supportparts
from agent.cli import app
from agent.commands.status import code, lines
from agent.config import Config
from agent.deepmachine import Machine, Ran
from agent.errors import OutputError, ServiceError
from agent.loglines import level_of, readable, wanted
from agent.redact import Redactor, secrets_of
from agent.supportbundle import CONTENTS, Part, write

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----"


def part(name, text):
    return Part(name, "test", lambda: text)


def content(path, name):
    with tarfile.open(path) as archive:
        (member,) = [m for m in archive.getmembers() if m.name.endswith("/" + name)]
        return archive.extractfile(member).read().decode()


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://user:hunter22@cam/1",
        "password: hunter22",
        '"mqtt_password": "hunter22"',
        "api_key=hunter22&x=1",
        "Authorization: Bearer hunter22hunter22",
        KEY.replace("MIGHAgEAMBMG", "hunter22"),
        "-----BEGIN EC PRIVATE KEY-----\nhunter22, and the file was cut",
    ],
)
def test_secrets_are_taken_out_by_their_looks(text):
    assert "hunter22" not in Redactor().text(f"before {text}\nafter")


@given(st.text(min_size=4, max_size=30), st.text(max_size=50), st.text(max_size=50))
def test_a_known_secret_stands_nowhere_afterwards(secret, before, after):
    shown = Redactor([secret]).text(before + secret + after)
    assert secret not in shown or secret in "***"


def test_json_stays_json():
    values = {
        "password": "hunter22",
        "key_password": None,
        "token": "***",
        "n": [1, {"psk": "abc"}],
    }
    shown = json.loads(Redactor().text(json.dumps(values)))
    assert shown == {"password": "***", "key_password": None, "token": "***",
                     "n": [1, {"psk": "***"}]}  # fmt: skip


def test_the_secrets_of_a_configuration_are_known():
    config = Config.model_validate(
        {
            "mqtt": {"host": "h", "username": "u", "password": "first-one"},
            "cameras": {"a": {"source": "rtsp://u:second-one@cam/1"}},
        }
    )
    assert {"first-one", "second-one"} <= set(secrets_of(config))


def test_a_bundle_lists_what_it_took_and_what_it_could_not(tmp_path):
    def broken():
        raise OSError("password=hunter22 was wrong")

    path = tmp_path / "b.tar.gz"
    entries = write(
        path, [part("a.txt", "token: hunter22"), Part("b.txt", "x", broken)], Redactor()
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert content(path, "a.txt") == "token: ***"
    listing = json.loads(content(path, CONTENTS))
    assert [p["name"] for p in listing["parts"]] == ["a.txt", "b.txt"]
    assert "OSError" in listing["parts"][1]["problem"]
    assert "hunter22" not in json.dumps(listing)
    assert entries[0].size == len("token: ***")


def test_a_bundle_is_bounded_and_says_what_was_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(supportbundle, "MAX_ITEM_BYTES", 100)
    monkeypatch.setattr(supportbundle, "MAX_BUNDLE_BYTES", 150)
    path = tmp_path / "b.tar.gz"
    long = "a" * 400 + "end"
    entries = write(path, [part(f"{n}.txt", long) for n in range(3)], Redactor())
    assert [(e.size, e.cut) for e in entries] == [(100, 303), (50, 353), (0, 0)]
    assert "150 bytes" in entries[2].problem
    assert content(path, "0.txt").endswith("end")


def test_a_bundle_replaces_no_file(tmp_path):
    path = tmp_path / "b.tar.gz"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--output"):
        write(path, [], Redactor())
    assert path.read_text() == "mine"


def test_the_command_makes_a_bundle_without_secrets_also_of_a_bad_configuration(tmp_path):
    config = tmp_path / "agent.yaml"
    config.write_text("mqtt: {host: h, username: u, password: hunter22}\nnonsense: 1\n")
    path = tmp_path / "out.tar.gz"
    arguments = ["support-bundle", "-c", str(config), "-o", str(path), "--no-check", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    parts = {p["name"]: p for p in json.loads(done.stdout)["parts"]}
    assert parts["versions.json"]["problem"] == ""
    assert "nonsense" in parts["configuration.json"]["problem"]
    with tarfile.open(path) as archive:
        data = b"".join(archive.extractfile(m).read() for m in archive.getmembers())
    assert b"hunter22" not in data


PLANTED = {
    "broker": 'broker-pass-"quoted',
    "key": "key-pass-1",
    "token": "page-token-0123456789abcdef",
    "camera": "cam%40pass%3A1",
}
"""Of the configuration, as they stand in it."""

STRANGE = ("wg-key-abc123=", "wifi-pass-2", "bearer-abc-123456", "session-abc-1", "PEMBODYSECRET")
"""Of others: known by their looks only."""

JOURNAL = "\n".join(
    [
        json.dumps({"event": f"cannot log in with {PLANTED['broker']}"}),
        "rtsp://admin:cam@pass:1@10.0.0.2/stream: refused",
        "opening rtsp://admin:cam%40pass%3A1@10.0.0.2/stream",
        f"GET /?token={PLANTED['token']} 200",
        f"the key's password {PLANTED['key']} was wrong",
        f"PrivateKey = {STRANGE[0]}",
        f"wpa psk={STRANGE[1]}",
        f"Authorization: Bearer {STRANGE[2]}",
        f"Cookie: vigia={STRANGE[3]}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{STRANGE[4]}\n-----END RSA PRIVATE KEY-----",
    ]
)


def test_a_bundle_of_a_device_full_of_secrets_holds_none_of_them(tmp_path, monkeypatch):
    """In every part, in every form that they may have there."""
    config, state, path = tmp_path / "agent.yaml", tmp_path / "state", tmp_path / "out.tar.gz"
    (state / "keys").mkdir(parents=True)
    (state / "keys" / "seal.pem").write_text(STRANGE[4])
    (tmp_path / "c.pem").write_text(STRANGE[4])
    values = {
        "device": {"id": "d1"},
        "mqtt": {
            "host": "broker.example",
            "username": "u",
            "password": PLANTED["broker"],
            "tls": {
                "cert_file": str(tmp_path / "c.pem"),
                "key_file": str(tmp_path / "c.pem"),
                "key_password": PLANTED["key"],
            },
        },
        "cameras": {"door": {"source": f"rtsp://admin:{PLANTED['camera']}@10.0.0.2/stream"}},
        "http": {"enabled": True, "token": PLANTED["token"]},
        "updates": {"state_dir": str(state)},
    }
    config.write_text(json.dumps(values))
    asked = json.dumps({"events": [{"what": JOURNAL}], "config": values}).encode()
    monkeypatch.setattr(supportparts.askagent, "ask", lambda _http, _what: asked)
    monkeypatch.setattr(Machine, "run", lambda _self, _command, _timeout_s=0.0: Ran(0, JOURNAL))
    arguments = ["support-bundle", "-c", str(config), "-o", str(path), "--no-network", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    parts = {p["name"]: p for p in json.loads(done.stdout)["parts"]}
    taken = {name for name, entry in parts.items() if not entry["problem"]}
    assert taken >= {"configuration.json", "status.json", "check.json", "journal.txt", "state.txt"}
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    secrets = [
        *PLANTED.values(),
        # However deep in JSON within JSON it stands.
        "broker-pass",
        # In the URL and out of it.
        "cam@pass",
        *STRANGE,
    ]
    found = [(name, secret) for name, text in files.items() for secret in secrets if secret in text]
    assert not found
    assert secrets[0] not in done.output
    # It is still of use.
    assert "broker.example" in "".join(files.values())
    assert "10.0.0.2" in "".join(files.values())


LINE = json.dumps({"event": "camera door: down", "level": "warning", "logger": "agent.x",
                   "timestamp": "2026-01-01T00:00:00Z", "seq": 3})  # fmt: skip


def test_log_lines_are_made_readable():
    assert readable(LINE) == "2026-01-01T00:00:00Z WARNING agent.x: camera door: down seq=3"
    assert readable(f"<4>{LINE}") == readable(LINE)
    assert readable("Traceback ...") == "Traceback ..."
    assert readable("[1, 2]") == "[1, 2]"


@pytest.mark.parametrize(
    ("line", "level"), [(LINE, "warning"), ("x [error    ] y", "error"), ("plain", "info")]
)
def test_a_line_says_how_important_it_is(line, level):
    assert level_of(line) == level
    assert wanted(line, level)
    assert not wanted(line, "critical")


@given(st.text())
def test_any_line_can_be_shown(line):
    assert isinstance(readable(line), str)
    assert wanted(line, "debug")


def test_logs_of_a_file_are_the_last_lines_of_the_level(tmp_path):
    file = tmp_path / "log"
    file.write_text("\n".join([LINE, "plain", LINE.replace("door", "gate\\u001b[31m")]) + "\n")
    done = CliRunner().invoke(app, ["logs", "--file", str(file), "--level", "warning", "-n", "1"])
    assert done.exit_code == 0
    assert "gate" in done.stdout
    assert "door" not in done.stdout
    assert "\x1b" not in done.stdout


WELL = {"service": {"ActiveState": "active", "SubState": "running"},
        "agent": {"health": {"healthy": True, "ready": True, "reasons": []},
                  "cameras": {"door": {"state": "online", "fps": 25.0}}, "models": {},
                  "events": [{"ts": 0, "severity": "info", "what": "started"}]}}  # fmt: skip


def test_status_says_how_the_agent_is():
    shown = "\n".join(lines(WELL))
    assert "camera door: state online, fps 25" in shown
    assert "started" in shown
    assert "agent: serves, all is well" in shown
    assert code(WELL) == 0


def test_status_names_each_thing_that_is_wrong_and_exits_with_1():
    reasons = ["camera gate: no answer", "no broker: refused"]
    agent = {
        "health": {"healthy": True, "ready": True, "reasons": reasons},
        "cameras": {"gate": {"state": "connecting", "since": 0.0}},
        "models": {"main": {"digest": "sha256:" + "ab" * 32}},
    }
    told = list(lines({"service": {}, "agent": agent}))
    assert told[1:4] == [
        "agent: serves, 2 things are wrong",
        "  wrong: camera gate: no answer",
        "  wrong: no broker: refused",
    ]
    assert "since 19" in told[4]
    assert told[5] == "model main: digest sha256:abababababab"
    assert code({"service": {}, "agent": agent}) == 1


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({"service": {}, "problem": "no answer"}, 3),
        ({"service": {"ActiveState": "active"}, "problem": "no answer"}, 1),
        ({"service": {}, "agent": {"health": {"healthy": False, "ready": True}}}, 1),
        ({"service": {}, "agent": {"health": {"healthy": True, "ready": False}}}, 1),
    ],
)
def test_status_exits_with_what_is_wrong(shown, expected):
    assert code(shown) == expected
    assert list(lines(shown))


def test_a_program_that_fails_without_a_word_of_use_is_left_out_of_the_bundle():
    class Broken(Machine):
        def run(self, command, timeout_s=0.0):
            del command, timeout_s
            return Ran(1, "", "no bus")

    with pytest.raises(ServiceError, match="ended with 1: no bus"):
        supportparts._run(Broken(), ["timedatectl"])
