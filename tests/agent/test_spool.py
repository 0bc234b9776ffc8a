from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time

import pytest

from agent import stallpoint
from agent.config import SpoolConfig
from agent.events import Events
from agent.spool import MEMORY_MESSAGES, Spool
from agent.spoolwindow import WINDOW
from agent.wire.events import Event
from agent.wire.topics import Topics
from tests.fakes.acklink import AckLink
from tests.fakes.watchedspool import WatchedSpool

DETECTION = json.dumps({"ts": 1.0, "objects": []})[1:].encode()


@pytest.fixture
def run(tmp_path):
    """Starts spools on one folder; what is left open is closed at the end."""
    made = []

    def start(link: AckLink, boot: str = "b1", *, disk: bool = True, **settings) -> WatchedSpool:
        config = SpoolConfig.model_validate({"flush_interval_s": 0.05, **settings})
        folder = tmp_path / "spool" if disk else None
        spool = WatchedSpool(link, Topics("p", "d"), "d", boot, config, folder)
        events = Events(spool.take_event)
        spool.events = events
        spool.start(events.tell)
        made.append(spool)
        return spool

    yield start
    for spool in made:
        spool.close(0)


@pytest.fixture
def mistaken(tmp_path, caplog):
    """A spool whose thread ends by a mistake as soon as it publishes, and when it has."""

    class Broken(AckLink):
        def publish(self, *_args, **_named):
            raise RuntimeError("a mistake")

    ended = threading.Event()
    caplog.handler.addFilter(lambda r: ended.set() or True if "by a mistake" in r.msg else True)
    return WatchedSpool(Broken(), Topics("p", "d"), "d", "b", SpoolConfig(), tmp_path), ended


def tell(spool: Spool, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        spool.take_event(Event("agent", "info", f"event {number}"))


def whats(link: AckLink) -> list[str]:
    return [t.json["what"] for t in link.taken if t.topic == "p/d/events"]


def on_disk(tmp_path) -> int:
    with contextlib.closing(sqlite3.connect(tmp_path / "spool" / "d.db")) as db:
        return db.execute("SELECT count(*) FROM item").fetchone()[0]


def test_events_are_sent_at_once_in_order_and_cost_the_disk_nothing(run):
    link = AckLink()
    spool = run(link, flush_interval_s=5)
    tell(spool, 200)
    taken = link.wait_for(200)
    assert whats(link) == [f"event {n}" for n in range(200)]
    assert [t.json["seq"] for t in taken] == list(range(200))
    assert {(t.topic, t.qos, t.schema, t.json["replay"]) for t in taken} == {
        ("p/d/events", 1, "vigia.event/1", False)
    }
    spool.until(lambda: spool.counters()["acknowledged"] == 200)
    assert spool.counters()["written"] == 0


def test_what_waited_is_replayed_in_order_before_anything_newer(run):
    link = AckLink(connected=False)
    spool = run(link)
    tell(spool, 150)
    spool.until(lambda: spool.counters()["disk_messages"] == 150)
    tell(spool, 50, first=150)
    link.connect()
    taken = link.wait_for(200)
    assert whats(link) == [f"event {n}" for n in range(200)]
    assert all(t.json["replay"] for t in taken)
    spool.until(lambda: spool.counters()["disk_messages"] == 0)
    tell(spool, 1, first=200)
    assert link.wait_for(201)[-1].json["replay"] is False


def test_a_restart_keeps_what_was_not_acknowledged_with_its_boot_time_and_number(run, tmp_path):
    away = AckLink(connected=False)
    first = run(away)
    tell(first, 100)
    first.close(1)
    assert on_disk(tmp_path) == 100
    link = AckLink()
    second = run(link, "b2")
    tell(second, 3, first=100)
    taken = link.wait_for(103)
    assert whats(link) == [f"event {n}" for n in range(103)]
    assert [t.json["boot"] for t in taken] == ["b1"] * 100 + ["b2"] * 3
    assert [t.json["seq"] for t in taken] == [*range(100), *range(3)]
    assert [t.json["replay"] for t in taken] == [True] * 100 + [False] * 3
    second.close(1)
    assert on_disk(tmp_path) == 0


def test_exactly_what_was_acknowledged_is_deleted(run, tmp_path):
    link = AckLink(auto=False)
    spool = run(link)
    tell(spool, 10)
    taken = link.wait_for(10)
    for number in (0, 1, 2, 7):
        taken[number].acknowledged()
    spool.until(lambda: spool.counters()["acknowledged"] == 4)
    link.connected = False
    spool.close(1)
    again = AckLink()
    run(again, "b2")
    again.wait_for(6)
    assert whats(again) == [f"event {n}" for n in (3, 4, 5, 6, 8, 9)]


def test_no_more_are_on_their_way_than_the_window_allows(run):
    link = AckLink(auto=False)
    spool = run(link)
    tell(spool, WINDOW * 2)
    link.wait_for(WINDOW)
    spool.until(lambda: spool.counters()["disk_messages"] == WINDOW * 2)
    assert len(link.taken) == WINDOW
    link.taken[0].acknowledged()
    assert link.wait_for(WINDOW + 1)[-1].json["what"] == f"event {WINDOW}"


def test_events_are_sent_before_detections_and_outlive_them(run):
    link = AckLink(connected=False)
    spool = run(link, detections=True, max_messages=100)
    for seq in range(90):
        spool.take_detection("a", seq, 0, DETECTION, replay=True)
    tell(spool, 60)
    spool.until(lambda: spool.counters()["dropped"]["space"] == 50)
    link.connect()
    taken = link.wait_for(100)
    assert [t.topic for t in taken] == ["p/d/events"] * 60 + ["p/d/cam/a/detections"] * 40
    assert [t.json["seq"] for t in taken[60:]] == list(range(50, 90))


def test_what_is_too_old_goes(run):
    link = AckLink(connected=False)
    spool = run(link, max_age_s=1)
    old = Event("agent", "info", "old", ts=time.time() - 100)
    unset = Event("agent", "info", "clock not set", ts=1000.0)
    spool.take_event(unset)
    spool.take_event(old)
    spool.until(lambda: spool.counters()["disk_messages"] == 2)
    spool.close(0.1)
    link = AckLink()
    again = run(link, "b2", max_age_s=1)
    link.wait_for(1)
    assert whats(link)[0] == "clock not set"
    again.until(lambda: again.counters()["dropped"]["age"] == 1)


def test_a_damaged_file_is_set_aside_and_told(run, tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "d.db").write_bytes(b"nonsense " * 5000)
    link = AckLink(connected=False)
    spool = run(link)
    tell(spool, 1)
    spool.until(lambda: spool.counters()["damaged_files"] == 1)
    spool.until(lambda: spool.counters()["disk_messages"] >= 2)
    assert (folder / "d.damaged").read_bytes().startswith(b"nonsense")
    (told,) = [e for e in spool.events.recent() if e.kind == "spool"]
    assert told.severity == "error"
    assert "d.damaged" in told.what


def test_pages_damaged_while_it_runs_lose_what_was_there_and_nothing_newer(run, tmp_path):
    link = AckLink(connected=False)
    first = run(link)
    tell(first, 500)
    first.until(lambda: first.counters()["disk_messages"] == 500)
    first.close(0.1)
    path = tmp_path / "spool" / "d.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    link = AckLink()
    second = run(link, "b2")
    tell(second, 3)
    second.until(lambda: len([w for w in whats(link) if w.startswith("event")]) == 3)
    assert second.counters()["damaged_files"] == 1


def test_a_folder_that_cannot_be_written_costs_only_the_durability(run, tmp_path):
    (tmp_path / "spool").write_text("a file where the folder should be")
    link = AckLink(connected=False)
    spool = run(link)
    tell(spool, 20)
    spool.until(lambda: spool.counters()["failures"] == 1)
    link.connect()
    link.wait_for(21)
    assert [w for w in whats(link) if w.startswith("event")] == [f"event {n}" for n in range(20)]
    (told,) = [e for e in spool.events.recent() if e.kind == "spool"]
    assert told.severity == "warning"
    assert spool.counters()["disk"] != "ok"


def test_without_a_disk_memory_is_bounded_and_the_oldest_go(run):
    link = AckLink(connected=False)
    spool = run(link, disk=False)
    tell(spool, MEMORY_MESSAGES + 5)
    assert spool.counters()["dropped"]["memory"] == 5
    link.connect()
    link.wait_for(MEMORY_MESSAGES)
    assert whats(link)[0] == "event 5"


def test_two_runs_do_not_share_a_file(run):
    link = AckLink(connected=False)
    first = run(link)
    first.until(lambda: first.counters()["disk"] == "ok")
    tell(first, 1)
    first.until(lambda: first.counters()["disk_messages"] == 1)
    other = AckLink()
    second = run(other, "b2")
    second.until(lambda: second.counters()["failures"] == 1)
    assert "locked" in str(second.counters()["disk"])
    assert not [w for w in whats(other) if w.startswith("event")]


def test_files_are_for_their_owner_only(run, tmp_path):
    spool = run(AckLink(connected=False))
    tell(spool, 1)
    spool.until(lambda: spool.counters()["disk_messages"] == 1)
    folder = tmp_path / "spool"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}


def test_damage_that_is_met_while_reading_costs_what_was_there_and_nothing_newer(run, tmp_path):
    link = AckLink(connected=False)
    spool = run(link)
    pad = {"pad": "x" * 20_000}
    for number in range(400):
        spool.take_event(Event("agent", "info", f"old {number}", pad))
    spool.until(lambda: spool.counters()["disk_messages"] == 400)
    path = tmp_path / "spool" / "d.db"
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    tell(spool, 3)
    link.connect()
    spool.until(
        lambda: (
            [w for w in whats(link) if w.startswith("event")] == [f"event {n}" for n in range(3)]
        )
    )
    spool.until(lambda: spool.counters()["disk"] == "ok")
    counters = spool.counters()
    assert counters["damaged_files"] == 1
    assert counters["dropped"]["damage"] > 0
    assert counters["failures"] < 5


def test_a_restart_with_a_late_disk_replaces_nothing(run, tmp_path):
    """What a run has taken before it can read the disk gets numbers behind what is there."""
    away = AckLink(connected=False)
    first = run(away)
    tell(first, 20)
    first.close(1)
    blocker = sqlite3.connect(tmp_path / "spool" / "d.db", isolation_level=None)
    blocker.execute("PRAGMA locking_mode=EXCLUSIVE")
    blocker.execute("BEGIN EXCLUSIVE")
    second = run(away, "b2")
    tell(second, 10, first=20)
    second.until(lambda: second.counters()["failures"] == 1)
    blocker.close()
    with second._lock:
        second._disk._retry_at = 0.0
        second._wake()
    # The event that tells of the failure, and that of its end, too.
    second.until(lambda: second.counters()["disk_messages"] == 32)
    second.close(0)
    link = AckLink()
    run(link, "b3")
    link.wait_for(32)
    assert [w for w in whats(link) if w.startswith("event")] == [f"event {n}" for n in range(30)]


def test_a_mistake_in_the_spool_does_not_stop_whoever_tells_and_is_raised_at_the_end(
    mistaken,
):
    spool, ended = mistaken
    events = Events(spool.take_event)
    spool.start(events.tell)
    events.tell("agent", "info", "one")
    assert ended.wait(10)
    events.tell("agent", "info", "two")
    with pytest.raises(RuntimeError, match="a mistake"):
        spool.close(1)


def test_what_waits_is_sent_past_a_thread_that_hangs(run, monkeypatch):
    link = AckLink()
    hung, released = threading.Event(), threading.Event()

    def hang(_name):
        hung.set()
        released.wait(10)

    monkeypatch.setattr(stallpoint, "hit", hang)
    spool = run(link, disk=False)
    assert hung.wait(10)
    assert spool.activity.age_s is not None
    tell(spool, 3)
    spool.take_detection("gate", 0, 0, DETECTION, replay=False)
    assert link.taken == []
    spool.speak_past_thread()
    assert whats(link) == ["event 0", "event 1", "event 2"]
    assert [t.json["seq"] for t in link.taken] == [0, 1, 2]
    released.set()


def test_a_spool_without_work_rests(run):
    link = AckLink()
    spool = run(link)
    tell(spool, 1)
    link.wait_for(1)
    spool.until(lambda: spool.activity.age_s is None)


def test_a_spool_that_has_ended_by_a_mistake_never_rests_so_that_the_watch_finds_it(
    mistaken,
):
    spool, ended = mistaken
    spool.start(Events(spool.take_event).tell)
    tell(spool, 1)
    assert ended.wait(10)
    assert spool.activity.age_s is not None
    with pytest.raises(RuntimeError, match="a mistake"):
        spool.close(1)
