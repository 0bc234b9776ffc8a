from __future__ import annotations

import threading

import pytest

from agent.threads import ThreadGroup


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
