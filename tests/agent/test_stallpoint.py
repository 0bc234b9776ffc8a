"""Places where a test hangs a thread: the wanted one at the wanted time, and no other."""

import importlib
import threading

import pytest

from agent import stallpoint

LONG_S, SHORT_S = 10.0, 0.05


@pytest.fixture
def armed(monkeypatch):
    """Gives an order; threads that hang by it are daemons and stay behind."""

    def arm(order):
        monkeypatch.setenv(stallpoint.VARIABLE, order)
        importlib.reload(stallpoint)

    yield arm
    monkeypatch.undo()
    importlib.reload(stallpoint)


def passes(name):
    thread = threading.Thread(target=stallpoint.hit, args=(name,), daemon=True)
    thread.start()
    return thread


def hangs(name):
    thread = passes(name)
    thread.join(SHORT_S)
    return thread.is_alive()


def through(name):
    thread = passes(name)
    thread.join(LONG_S)
    return not thread.is_alive()


def test_without_an_order_nobody_hangs(armed):
    armed("")
    assert through("loop")


def test_the_third_that_comes_hangs_once(armed):
    armed("loop:3")
    assert through("loop")
    assert through("link")
    assert through("loop")
    assert hangs("loop")
    assert through("loop")


def test_with_a_plus_all_that_come_later_hang_too(armed):
    armed("read:2+")
    assert through("read")
    assert hangs("read")
    assert hangs("read")
