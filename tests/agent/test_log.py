"""What logging looks like to machines and to people."""

import json
import logging

import pytest

from agent import log
from agent.config import LogConfig


@pytest.fixture(autouse=True)
def _root_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_machines_get_one_json_object_a_line(capsys):
    log.set_up(LogConfig())
    logging.getLogger("agent.x").warning("camera %s: %s", "door", "down\nagain")
    logging.getLogger("agent.x").debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["event"] == "camera door: down\nagain"
    assert (entry["level"], entry["logger"]) == ("warning", "agent.x")
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_libraries_that_tell_of_every_wrong_message_are_heard_when_asked(level, shown, capsys):
    log.set_up(LogConfig(level=level))
    logging.getLogger("tuf.api._payload").info("Key 12 failed to verify root")
    assert ("failed to verify" in capsys.readouterr().err) is shown


def test_people_get_a_line_without_colours_in_a_pipe(capsys):
    log.set_up(LogConfig(format="console", level="debug"))
    logging.getLogger("agent.x").debug("hello")
    shown = capsys.readouterr().err
    assert "hello" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_passwords_in_urls_are_hidden_also_in_tracebacks(capsys, form):
    log.set_up(LogConfig(format=form))
    try:
        raise ValueError("cannot open rtsp://user:hunter2@cam/1")
    except ValueError:
        logging.getLogger("agent.x").exception("http://a:hunter2@b/?token=hunter2 failed")
    shown = capsys.readouterr().err
    assert "hunter2" not in shown
    assert "rtsp://user:***@cam/1" in shown
    assert "Traceback" in shown
