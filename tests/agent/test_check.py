"""`vigia check`: findings about models, cameras and the broker."""

import json
import threading

import pytest
from typer.testing import CliRunner

from agent.check import Finding, advice, as_dicts, check, exit_code, run_probes
from agent.cli import app
from agent.config import Config
from agent.errors import CaptureError
from engines.errors import ModelFileError
from tests.vectors.models import make_model


def config(**changes):
    return Config.model_validate(
        {"mqtt": {"host": "h"}, "cameras": {"a": {"source": "synthetic://64x64@30"}}, **changes}
    )


def found(findings, name):
    return next(f for f in findings if f.name == name)


def test_findings_come_in_the_order_of_the_probes():
    second_done = threading.Event()

    def first():
        second_done.wait()
        return [Finding("first", "ok", "1")]

    def second():
        yield Finding("second", "ok", "2")
        second_done.set()

    findings = run_probes([("first", first), ("second", second)], limit_s=10)
    assert [f.name for f in findings] == ["first", "second"]


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (CaptureError("not a video; give another"), "not a video", "give another"),
        (CaptureError("a; b; c"), "a; b", "c"),
        (ModelFileError("is missing"), "is missing", ""),
    ],
)
def test_our_errors_are_failures_with_a_remedy(error, what, fix):
    def look():
        raise error

    assert run_probes([("x", look)], limit_s=10) == [Finding("x", "fail", what, fix)]


def test_bug_in_a_probe_is_a_failure_and_spares_the_others():
    def broken():
        raise ZeroDivisionError

    findings = run_probes([("x", broken), ("y", lambda: [Finding("y", "ok", "")])], limit_s=10)
    assert [f.status for f in findings] == ["fail", "ok"]
    assert "ZeroDivisionError" in findings[0].what


def test_probe_that_hangs_is_a_failure_and_holds_up_nobody():
    ends = threading.Event()
    findings = run_probes([("x", ends.wait), ("y", lambda: [Finding("y", "ok", "")])], limit_s=0.2)
    ends.set()
    assert findings == [
        Finding("x", "fail", "no answer within 0.2 s", "look whether it hangs"),
        Finding("y", "ok", ""),
    ]


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_only_failures_fail(status, code):
    assert exit_code([Finding("x", "ok", ""), Finding("y", status, "")]) == code


def test_password_without_tls_is_warned_of_unless_it_stays_here():
    secret = {"host": "broker.lan", "username": "u", "password": "p"}
    assert found(advice(config(mqtt=secret)), "mqtt.tls").status == "warn"
    assert advice(config(mqtt={**secret, "tls": {}})) == []
    assert advice(config(mqtt={**secret, "host": "localhost"})) == []


def test_unused_model_and_no_camera_are_told():
    findings = advice(config(models={"main": {}, "spare": {}}))
    assert [(f.name, f.status) for f in findings] == [("models.spare", "warn")]
    findings = advice(config(cameras={"a": {"source": "0", "enabled": False}}))
    assert found(findings, "cameras").status == "fail"


def test_model_and_camera_are_tried_for_real(tmp_path):
    model = tmp_path / "m.onnx"
    make_model(model)
    findings = check(
        config(
            models={"main": {"path": model}, "bad": {"path": tmp_path / "none.onnx"}},
            cameras={
                "a": {"source": "synthetic://64x48@30"},
                "b": {"source": str(tmp_path / "none.mp4"), "model": "bad"},
                "c": {"source": "rtsp://h/1"},
                "d": {"source": "0", "enabled": False},
                "e": {"source": "nonsense://x"},
            },
        ),
        network=False,
    )
    assert "detect, layout yolo" in found(findings, "models.main").what
    assert found(findings, "models.bad").status == "fail"
    assert found(findings, "cameras.a").what.startswith("64x48")
    assert found(findings, "cameras.b").status == "fail"
    assert found(findings, "cameras.c").what == "not probed: --no-network"
    assert found(findings, "cameras.d").what == "disabled, not probed"
    assert found(findings, "cameras.e").status == "fail"
    assert found(findings, "mqtt").what == "not probed: --no-network"


@pytest.fixture
def run(tmp_path):
    def run(source, *arguments):
        make_model(tmp_path / "m.onnx")
        path = tmp_path / "agent.yaml"
        path.write_text(
            f"mqtt: {{host: h}}\ncameras: {{a: {{source: '{source}'}}}}\n"
            "models: {main: {path: m.onnx}}\n"
        )
        return CliRunner().invoke(app, ["check", "-c", str(path), "--no-network", *arguments])

    return run


def test_command_ends_0_when_all_would_work(run):
    done = run("synthetic://64x64@30", "--json")
    assert done.exit_code == 0
    findings = json.loads(done.stdout)
    assert [f["name"] for f in findings] == ["models.main", "cameras.a", "mqtt"]
    assert all(set(f) == {"name", "status", "what", "fix"} for f in findings)


def test_command_ends_1_and_names_what_failed(run):
    done = run("none.mp4")
    assert done.exit_code == 1
    assert any(line.startswith("fail") and "cameras.a" in line for line in done.stdout.splitlines())


def test_dicts_are_what_json_needs():
    assert as_dicts([Finding("x", "ok", "y")]) == [
        {"name": "x", "status": "ok", "what": "y", "fix": ""}
    ]
