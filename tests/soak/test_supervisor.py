"""What acts as systemd in a soak, and the clock that it moves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.soak import supervisor as module
from tests.soak.clock import WallClock
from tests.soak.supervisor import Supervisor

CHILD = """
import os, socket, sys, time
speaker = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
say = lambda text: speaker.sendto(text, os.environ["NOTIFY_SOCKET"])
say(b"READY=1")
while sys.argv[1] != "silent":
    say(b"WATCHDOG=1")
    if sys.argv[1] == "leaves":
        sys.exit(3)
    time.sleep(0.05)  # on purpose: a service that looks at its stages now and then
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WATCHDOG_S", 1.0)
    monkeypatch.setattr(module, "ABORT_S", 0.2)
    made = []

    def begin(how: str) -> Supervisor:
        command = [sys.executable, "-c", CHILD, how]
        made.append(Supervisor(command, {}, tmp_path / "log", tmp_path / "notify"))
        made[-1].start()
        return made[-1]

    yield begin
    for one in made:
        one.close()


def ended(supervisor: Supervisor, lives: int) -> None:
    """Wait until so many lives are over."""
    supervisor._await(lambda: len(supervisor.lives) > lives, 10)


def test_a_frozen_program_is_ended_by_the_watchdog_and_started_again(start):
    supervisor = start("well")
    took_s = supervisor.hang()
    assert 1.0 <= took_s < 5
    assert supervisor.lives[0].cause == "watchdog"
    assert supervisor.crashes == []


def test_a_program_that_falls_silent_by_itself_is_a_crash(start):
    supervisor = start("silent")
    ended(supervisor, 1)
    assert supervisor.crashes[0].startswith("watchdog")


def test_a_program_that_leaves_is_a_crash_and_is_started_again(start):
    supervisor = start("leaves")
    ended(supervisor, 2)
    assert supervisor.crashes[0].startswith("by itself, code 3")


def test_an_end_that_was_asked_for_is_none_but_it_must_be_a_good_one(start):
    supervisor = start("well")
    supervisor.end(signal.SIGKILL, "killed")
    assert (supervisor.lives[0].cause, supervisor.crashes) == ("killed", [])
    # The program knows no SIGTERM: it ends by it, not well.
    supervisor.end(signal.SIGTERM, module.STOPPED)
    assert supervisor.crashes == [f"asked to stop, it ended with {-signal.SIGTERM}"]


def test_the_wall_clock_of_a_process_jumps_while_its_monotonic_clock_goes_on(tmp_path):
    clock = WallClock(tmp_path)
    if clock.missing:
        pytest.skip(clock.missing)
    program = (
        "import time\nwhile input() == 'look': print(time.time(), time.monotonic(), flush=True)"
    )
    seen = []
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clock.environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for offset_s in (0, 3600, -7200):
            clock.jump(offset_s)
            process.stdin.write("look\n")
            process.stdin.flush()
            wall_s, monotonic_s = map(float, process.stdout.readline().split())
            seen.append((wall_s - time.time(), monotonic_s - time.monotonic()))
        process.stdin.write("end\n")
    assert [round(wall_s / 60) for wall_s, _ in seen] == [0, 60, -120]
    assert all(abs(monotonic_s) < 10 for _, monotonic_s in seen)
