"""What is told to a service manager, read from the socket that it would listen at."""

import os
import socket

import pytest

from agent.sdnotify import MAX_STATUS_CHARS, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@vigia-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(5)
        yield name, lambda: listener.recv(4096).decode().split("\n")


def test_each_state_reaches_the_manager(manager):
    name, heard = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2500000"})
    assert notifier.watchdog_s == 2.5
    notifier.ready("3 cameras")
    assert heard() == ["READY=1", "STATUS=3 cameras"]
    notifier.alive()
    assert heard() == ["WATCHDOG=1"]
    notifier.reloading("reading")
    state, moment, _ = heard()
    assert state == "RELOADING=1"
    assert int(moment.removeprefix("MONOTONIC_USEC=")) > 0
    notifier.stopping("bye")
    assert heard() == ["STOPPING=1", "STATUS=bye"]


def test_a_status_is_one_bounded_line_and_cannot_smuggle_an_assignment(manager):
    name, heard = manager
    Notifier({"NOTIFY_SOCKET": name}).status("a\nREADY=1\n" + "x" * 1000)
    (line,) = heard()
    assert line.startswith("STATUS=a READY=1 x")
    assert len(line) == len("STATUS=") + MAX_STATUS_CHARS


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "abc"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_for_this_process_none_is_served(environ):
    assert Notifier(environ).watchdog_s is None


def test_the_watchdog_of_this_process_is_served():
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 1


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_a_manager_that_does_not_listen_hurts_nobody(name):
    Notifier({"NOTIFY_SOCKET": name}).ready("x")
