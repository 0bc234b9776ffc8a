from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines.filelock import file_lock, folder_lock

HOLDER = """
import sys, pathlib
from engines.filelock import file_lock, folder_lock
with {lock}(pathlib.Path({path!r}), 5):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["file_lock", "folder_lock"])
def holder(request, tmp_path: Path):
    """A process that holds a lock, and a function that tries for it."""
    path = tmp_path / "x.lock" if request.param == "file_lock" else tmp_path
    code = HOLDER.format(lock=request.param, path=str(path))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"

    def can_take(timeout_s: float) -> bool:
        if request.param == "file_lock":
            with file_lock(path, timeout_s) as held:
                return held
        try:
            with folder_lock(path, timeout_s):
                return True
        except TimeoutError:
            return False

    yield child, can_take
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        pipe.close()


def test_a_lock_of_another_process_keeps_us_away_until_the_time_limit(holder):
    _, can_take = holder
    began = time.monotonic()
    assert not can_take(0.1)
    assert time.monotonic() - began >= 0.1


def test_a_killed_holder_holds_nothing(holder):
    child, can_take = holder
    child.kill()
    child.wait()
    assert can_take(5)


def test_a_waiter_gets_the_lock_when_its_holder_ends(holder):
    child, can_take = holder
    thread = threading.Timer(0.1, child.stdin.close)
    thread.start()
    assert can_take(10)
    thread.join()


def test_the_lock_file_is_gone_afterwards(tmp_path: Path):
    with file_lock(tmp_path / "x.lock", 1) as held:
        assert held
        assert (tmp_path / "x.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_failing_block_gives_the_lock_back(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / "x.lock", 1):
        raise ZeroDivisionError
    with file_lock(tmp_path / "x.lock", 0) as held:
        assert held


def test_threads_that_take_turns_are_never_inside_together(tmp_path: Path):
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with file_lock(tmp_path / "x.lock", 30) as held:
                assert held
                inside.append(number)
                most.append(len(inside))
                time.sleep(0)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len(most) == 80
    assert max(most) == 1
