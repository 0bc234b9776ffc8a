from __future__ import annotations

import socket
import threading

import pytest

from agent.mqttwait import SocketWait

LONG_S = 30.0


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def wait():
    made = SocketWait()
    yield made
    made.close()


def test_it_returns_when_the_socket_is_readable_or_writable(wait, pair):
    ours, theirs = pair
    assert wait.wait(ours, write=False, timeout_s=0) == (False, False)
    assert wait.wait(ours, write=True, timeout_s=LONG_S) == (False, True)
    theirs.send(b"x")
    assert wait.wait(ours, write=False, timeout_s=LONG_S) == (True, False)


def test_every_wake_is_seen_however_threads_interleave(wait, pair):
    ours, _ = pair
    rounds = 2000
    done = 0
    seen = threading.Semaphore(0)

    def waker() -> None:
        for _ in range(rounds):
            wait.wake()
            assert seen.acquire(timeout=LONG_S)

    thread = threading.Thread(target=waker)
    thread.start()
    while done < rounds:
        wait.wait(ours, write=False, timeout_s=LONG_S)
        done += 1
        seen.release()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_a_wake_before_the_wait_is_not_lost_and_many_are_one(wait, pair):
    ours, _ = pair
    for _ in range(100_000):
        wait.wake()
    wait.wait(ours, write=False, timeout_s=LONG_S)
    assert wait.wait(ours, write=False, timeout_s=0) == (False, False)


def test_waking_after_the_end_does_nothing(pair):
    wait = SocketWait()
    wait.close()
    wait.wake()
