"""The device is killed, or its disk fails, while accepted metadata is saved in the real store."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent.bundle.trust import Trust
from agent.errors import StoreError
from agent.update.store import Store
from tests.fakes.tufrepository import NOW, PATH, TufRepository, target

ROOT = Path(__file__).parents[3]

CHILD = """
import base64, collections, json, os, signal, sys
from pathlib import Path
from agent.bundle.trust import Trust
from agent.update.store import Store

class Deadly(collections.UserDict):
    "Gives out one file, and no more is done."
    def items(self):
        for item in super().items():
            yield item
            os.kill(os.getpid(), signal.SIGKILL)

class Mirror:
    def __init__(self, inner):
        self.load, self._save = inner.load, inner.save
        self.time_floor, self.raise_time_floor = inner.time_floor, inner.raise_time_floor
    def save(self, files):
        self._save(Deadly(files))

anchor, message, now = json.load(sys.stdin)
store = Store(Path(sys.argv[1]), lambda: now)
trust = Trust(base64.b64decode(anchor), Mirror(store.trust), lambda: now)
trust.refresh(base64.b64decode(message))
"""


@pytest.fixture
def repo():
    return TufRepository()


def accept(folder, repo, message):
    store = Store(folder, lambda: NOW)
    try:
        trust = Trust(repo.anchor, store.trust, lambda: NOW)
        trust.refresh(message)
    finally:
        store.close()


def counter_of(folder, repo):
    """What a device that starts now knows of the target."""
    store = Store(folder, lambda: NOW)
    try:
        return Trust(repo.anchor, store.trust, lambda: NOW).target(PATH).release_counter
    finally:
        store.close()


def test_killed_in_the_middle_of_saving_it_has_the_old_set(tmp_path, repo):
    accept(tmp_path, repo, repo.publish())
    repo.targets.targets[PATH] = target(counter=2)
    repo.add_root()
    message = repo.publish()
    told = [base64.b64encode(repo.anchor).decode(), base64.b64encode(message).decode(), NOW]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path],
        cwd=ROOT,
        input=json.dumps(told),
        text=True,
        check=False,
        timeout=50,
    )
    assert child.returncode == -signal.SIGKILL
    assert counter_of(tmp_path, repo) == 1
    accept(tmp_path, repo, message)
    assert counter_of(tmp_path, repo) == 2


def test_a_disk_that_fails_in_the_middle_of_saving_leaves_the_old_set(tmp_path, repo):
    accept(tmp_path, repo, repo.publish())
    (path,) = tmp_path.glob("*.db")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON trust WHEN NEW.name = 'timestamp.json' "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    connection.close()
    repo.targets.targets[PATH] = target(counter=2)
    with pytest.raises(StoreError):
        accept(tmp_path, repo, repo.publish())
    assert counter_of(tmp_path, repo) == 1
