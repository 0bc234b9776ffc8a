from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.update import failpoints

ROOT = Path(__file__).parents[3]

PROGRAM = """
import time
from agent.update.failpoints import hit
for n in range(5):
    print(n, flush=True)
    hit("C1.other")
    hit("C4.building")
hit("C5.built")
print("waits", flush=True)
time.sleep(20)
"""


def run(order):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM if order else PROGRAM.replace("20", "0")],
        cwd=ROOT,
        env={**os.environ, **({failpoints.VARIABLE: order} if order else {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(("order", "reached"), [("C4.building", "0"), ("C4.building:3", "2")])
def test_the_process_is_killed_there(order, reached):
    done = run(order)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split()[-1] == reached


def test_a_seed_kills_in_the_midst_of_what_follows():
    done = run("C5.built@7")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split()[-1] == "waits"


@pytest.mark.parametrize("order", ["", "C4", "C4.building.more", "other:1", ":1", "@3"])
def test_other_places_do_nothing(order, monkeypatch):
    monkeypatch.setattr(failpoints.os, "kill", lambda *_: pytest.fail("killed"))
    monkeypatch.setenv(failpoints.VARIABLE, order)
    failpoints.hit("C4.building")


def test_without_the_variable_it_costs_nothing(monkeypatch):
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    begun = time.perf_counter()
    for _ in range(1000):
        failpoints.hit("C1.block")
    assert time.perf_counter() - begun < 0.5
    assert run(None).returncode == 0


def test_the_moment_is_the_same_for_the_same_seed(monkeypatch):
    moments = []

    class Thread:
        def __init__(self, target, args, daemon):
            moments.extend(args)

        def start(self):
            pass

    monkeypatch.setattr(failpoints.threading, "Thread", Thread)
    for order in ("x@1", "x@1", "x@2"):
        monkeypatch.setenv(failpoints.VARIABLE, order)
        failpoints._reached.clear()
        failpoints.hit("x")
        failpoints.hit("x")
    failpoints._reached.clear()
    assert moments[0] == moments[1] != moments[2]
    assert all(0 <= moment <= failpoints.SPREAD_S for moment in moments)
