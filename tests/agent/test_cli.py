"""The command line as people use it: help, exit codes, colours, output for programs."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agent.cli import app
from tests.vectors.models import make_model

ROOT = Path(__file__).parents[2]
COMMANDS = ["run", "check", "config", "cameras", "model", "detect", "watch", "version"]
LIMIT_S = 30

GOOD = "mqtt: {host: h, password: hunter2}\ncameras: {a: {source: 'synthetic://64x64@30'}}\n"


def vigia(*arguments, **environ):
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=ROOT,
        env={**os.environ, **environ},
        check=False,
    )


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    make_model(path)
    return path


def test_help_names_every_command_without_colours_in_a_pipe():
    done = vigia("--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert "\x1b" not in done.stdout


def test_help_imports_nothing_slow():
    slow = "numpy cv2 onnx onnxruntime pydantic yaml structlog anyio paho psutil rich"
    slow += " sqlalchemy tuf securesystemslib cryptography"
    code = f"import sys, agent.cli; print(sorted(set('{slow}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_settings_need_no_opencv_and_no_runtime():
    code = "import sys, agent.configfile; print({'cv2', 'onnxruntime', 'onnx'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


def leaves(command, path=()):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
        return
    for name, below in inner.items():
        yield from leaves(below, (*path, name))


@pytest.mark.parametrize("path", list(leaves(typer.main.get_command(app))), ids=" ".join)
def test_every_command_teaches_by_an_example(path):
    done = CliRunner().invoke(app, [*path, "--help"])
    assert done.exit_code == 0
    assert f"Example: vigia {' '.join(path)}" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-c", "/none.yaml"], "error: /none.yaml: cannot be read: No such file"),
        (["check", "-c", "/none.yaml"], "error: /none.yaml: cannot be read"),
        (["config", "show", "-c", "/"], "error: /: cannot be read: Is a directory"),
        (["model", "inspect", "/none.onnx"], "error: there is no model file /none.onnx"),
        (["model", "inspect", __file__], "is not an ONNX file"),
        (["cameras", "probe"], "error: name sources to probe"),
        (["cameras", "probe", ""], "error: a source is empty"),
        (["watch", "--port", "1"], "error: --port needs --host"),
        (["watch", "--host", "a", "-c", "b"], "error: --host and --config: give one"),
        (["watch", "--host", "mqtt://a"], "error: --host: must be a host name"),
        (["run", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, words):
    done = vigia(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    if words.startswith("error:"):
        assert len(done.stderr.splitlines()) == 1


def test_every_mistake_of_a_configuration_is_a_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("mqtt: {hots: h}\ncamras: {}\n")
    lines = vigia("run", "-c", path).stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"error: {path}:") for line in lines)


def test_debug_shows_the_traceback():
    done = vigia("--debug", "config", "show", "-c", "/none.yaml")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_interrupt_is_exit_code_130():
    # A broker that takes the connection and never answers: the command waits.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(LIMIT_S)
        port = str(silent.getsockname()[1])
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "watch", "--host", "127.0.0.1", "--port", port],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        with process, silent.accept()[0] as connection:
            # It has asked to be connected, so it waits for the answer.
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=LIMIT_S)[1]
            assert process.returncode == 130, said
            assert "Traceback" not in said


def test_reader_that_has_had_enough_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "config", "schema"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=LIMIT_S,
        check=False,
    )
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(environ, coloured):
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "agent", "--help"],
        stdout=theirs,
        cwd=ROOT,
        timeout=LIMIT_S,
        check=True,
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ},
    )
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert b"Usage" in shown
    assert (b"\x1b[3" in shown or b"\x1b[1;3" in shown) == coloured


def _read(descriptor):
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # how a pseudo-terminal says that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("libGL.so.1: cannot open shared object file", "pip install 'vigia-agent[opencv]'"),
        ("No module named 'cv2'", "JetPack"),
        ("numpy.core.multiarray failed to import", "numpy<2"),
    ],
)
def test_missing_opencv_is_one_clear_error(tmp_path, message, remedy):
    (tmp_path / "cv2.py").write_text(f"raise ImportError({message!r})\n")
    done = vigia("cameras", "probe", "0", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: OpenCV cannot be used: {message}; ")
    assert remedy in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_config_show_has_defaults_and_no_secret(config):
    done = vigia("config", "show", "-c", config)
    assert done.returncode == 0
    assert "keepalive_s: 30" in done.stdout
    assert "password: '***'" in done.stdout
    assert "hunter2" not in done.stdout
    as_json = json.loads(vigia("config", "show", "-c", config, "--json").stdout)
    assert as_json["mqtt"]["password"] == "***"


def test_config_schema_is_json():
    assert json.loads(vigia("config", "schema").stdout)["title"] == "Vigia agent configuration"


def test_model_inspect_names_task_and_layout(model):
    text = vigia("model", "inspect", model).stdout
    assert "detect" in text
    assert "yolo" in text
    found = json.loads(vigia("model", "inspect", model, "--json").stdout)
    assert (found["task"], found["layout"]) == ("detect", "yolo")
    assert found["digest"].startswith("sha256:")
    assert set(found) == {
        "name", "digest", "task", "layout", "names", "width", "height", "max_batch", "resize",
        "stride", "keypoint_shape", "precision", "input", "outputs", "inferred",
    }  # fmt: skip


def test_version_names_the_libraries():
    found = json.loads(vigia("version", "--json").stdout)
    assert found["vigia"] == "0.1.0"
    assert found["opencv"]
    assert found["onnxruntime"]
    assert set(found) == {
        "vigia", "python", "machine", "onnxruntime", "opencv", "onnx", "numpy", "tensorrt",
        "pycuda", "paho-mqtt",
    }  # fmt: skip


def test_cameras_probe_says_what_each_gives_and_fails_if_one_does(config, tmp_path):
    done = vigia("cameras", "probe", "-c", config, "--json")
    (report,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert (report["camera"], report["ok"]) == ("a", True)
    assert (report["width"], report["height"]) == (64, 64)
    done = vigia("cameras", "probe", "synthetic://64x64@30", tmp_path / "none.mp4")
    assert done.returncode == 1
    assert "source0: 64x64" in done.stdout
    assert "source1: FAILED" in done.stdout
