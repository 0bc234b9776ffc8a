"""Stacks of all threads: named, bounded, without the place of installation."""

import json
import threading

from agent.stallreport import MAX_FRAMES, MAX_STACKS_CHARS, stacks


def deep(count, entered, released):
    if count:
        deep(count - 1, entered, released)
    else:
        entered.set()
        released.wait(10)


def test_a_thread_that_waits_is_shown_where_it_waits():
    entered, released = threading.Event(), threading.Event()
    thread = threading.Thread(target=deep, args=(50, entered, released), name="deep-one")
    thread.start()
    try:
        assert entered.wait(10)
        found = stacks()
    finally:
        released.set()
        thread.join()
    (lines,) = [lines for name, lines in found.items() if name.startswith("deep-one ")]
    assert len(lines) == MAX_FRAMES
    assert lines[-1].endswith(" wait")
    assert any(" deep" in line and "tests/agent/test_stallreport.py:" in line for line in lines)
    assert not any(line.startswith("/") for line in lines)


def test_many_threads_fit_into_an_event():
    entered, released = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=deep, args=(40, entered, released), name=f"t{i}-" + "x" * 500)
        for i in range(100)
    ]
    for thread in threads:
        thread.start()
    try:
        assert entered.wait(10)
        found = stacks()
    finally:
        released.set()
        for thread in threads:
            thread.join()
    assert found
    assert len(json.dumps(found)) < MAX_STACKS_CHARS * 1.2
