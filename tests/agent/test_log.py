"""What logging looks like to machines and to people."""

import io
import json
import logging
import os

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


class Terminal(io.StringIO):
    """Standard error as a person has it."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("variable", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(variable, coloured, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("NO_COLOR", variable)
    log.set_up(LogConfig())
    logging.getLogger("agent.x").error("down")
    shown = terminal.getvalue()
    assert ("\x1b[31m" in shown) is coloured
    assert "error" in shown
    assert "down" in shown
    assert "agent.x" in shown


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


@pytest.mark.parametrize(("form", "lines"), [("json", 1), ("console", 3)])
def test_every_line_to_the_journal_begins_with_its_priority(form, lines, tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log.set_up(LogConfig(format=form))
        logging.getLogger("agent.x").warning("one\ntwo\nthree")
        stream.seek(0)
        written = stream.read().splitlines()
    assert len(written) == lines
    assert all(line.startswith("<4>") for line in written)


@pytest.mark.parametrize("value", ["1:2", "", "nonsense", "8:"])
def test_a_stream_that_is_not_the_journals_has_no_priorities(value, tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w+") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", value)
        log.set_up(LogConfig())
        logging.getLogger("agent.x").error("down")
        stream.seek(0)
        assert stream.read().startswith("{")


@pytest.mark.parametrize(
    ("level", "number"), [("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("INFO", 6), ("DEBUG", 7)]
)
def test_levels_are_syslogs(level, number):
    assert log.priority(logging.getLevelName(level)) == number
