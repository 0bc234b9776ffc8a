from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from agent.threads import ThreadGroup, leave


def test_waiting_ends_when_all_threads_have_ended():
    group = ThreadGroup()
    done: list[int] = []
    for number in range(3):
        group.start(f"t{number}", done.append, number)
    assert group.wait(10)
    assert sorted(done) == [0, 1, 2]


def test_a_crash_tells_the_owner_at_once_and_is_raised_to_whoever_waits():
    release = threading.Event()
    group = ThreadGroup(on_error=release.set)
    group.start("patient", release.wait, 10)

    def crash() -> None:
        raise LookupError("broken")

    group.start("crashing", crash)
    with pytest.raises(LookupError, match="broken"):
        group.wait(10)
    assert release.is_set()


def test_waiting_gives_up_on_a_thread_that_hangs():
    group = ThreadGroup()
    release = threading.Event()
    group.start("hung", release.wait, 30)
    assert not group.wait(0.01)
    release.set()
    assert group.wait(10)


def test_a_process_ends_with_its_code_though_a_thread_hangs_in_native_code():
    code = (
        "import logging, threading, atexit; from agent.threads import leave;"
        "threading.Thread(target=threading.Event().wait, name='read-x', daemon=True).start();"
        "atexit.register(print, 'destructors'); print('said'); leave(7, 'read-')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (7, b"said\n")


def test_where_no_such_thread_is_left_the_process_ends_as_usual():
    leave(7, "no thread is called so")
