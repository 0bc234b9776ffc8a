"""The spool with real processes, a real broker and real kills."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from agent.config import SpoolConfig
from agent.events import Events
from agent.spool import Spool
from agent.wire.events import Event
from agent.wire.topics import Topics
from tests.fakes.acklink import AckLink
from tests.fakes.smalldisk import small_disk
from tests.fakes.watchedspool import WatchedSpool
from tests.integration.agents import SOON_S, settings, validate
from tests.integration.mosquitto import Mosquitto
from tests.integration.subscriber import Subscriber

ROOT = Path(__file__).parents[2]
RUNS = 6
LOST_TAIL_S = 0.6
"""The flush interval of 0.1 s, and room for a busy machine."""


@pytest.fixture
def broker(tmp_path):
    made = Mosquitto(tmp_path / "broker", {"plain": ("allow_anonymous true",)})
    made.start()
    yield made
    made.kill()


def start(port: int, boot: str, folder: Path, told: Path) -> subprocess.Popen[bytes]:
    module = "tests.integration.spoolchild"
    arguments = [str(port), "k", boot, str(folder), str(told)]
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)


def test_kills_of_the_process_and_outages_of_the_broker_lose_nothing_that_was_flushed(
    broker, tmp_path
):
    told_file = tmp_path / "told"
    rest = threading.Event()
    choose = random.Random(7)
    killed: dict[str, float] = {}
    with Subscriber(broker.port, "k/d/events", qos=1) as reader:
        for number in range(RUNS):
            boot = f"b{number}"
            child = start(broker.port, boot, tmp_path / "spool", told_file)
            mark = f"{boot} 20 "
            deadline = time.monotonic() + SOON_S
            while not told_file.exists() or mark not in told_file.read_text():
                assert time.monotonic() < deadline
                rest.wait(0.01)
            if number % 2:
                broker.kill()
            rest.wait(choose.uniform(0.1, 1.0))
            child.send_signal(signal.SIGKILL)
            child.wait(SOON_S)
            killed[boot] = time.monotonic()
            if number % 2:
                broker.start()
                reader.wait_subscribed()
        told = defaultdict(dict)
        for line in told_file.read_text().splitlines():
            boot, number, at = line.split()
            told[boot][int(number)] = float(at)
        # One more run brings what the last ones left.
        last = start(broker.port, "last", tmp_path / "spool", tmp_path / "more")
        try:
            reader.wait_for(lambda all_: any(m.json["boot"] == "last" for m in all_), SOON_S)
        finally:
            last.kill()
            last.wait(SOON_S)
        found = defaultdict(list)
        for message in reader.messages:
            found[message.json["boot"]].append(message.json)
    for boot, at_kill in killed.items():
        first_seen = list(dict.fromkeys(m["seq"] for m in found[boot]))
        assert first_seen == list(range(len(first_seen))), f"{boot}: a gap, or out of order"
        due = [n for n, at in told[boot].items() if at < at_kill - LOST_TAIL_S]
        assert set(due) <= set(first_seen), f"{boot}: lost {set(due) - set(first_seen)}"
    order = list(dict.fromkeys(m.json["boot"] for m in reader.messages))
    assert order == sorted(order)


def test_what_an_agent_told_while_the_broker_was_away_arrives_after_it_was_killed(
    agents, broker, model
):
    broker.kill()
    config = settings(broker.port, "a", model, {"scene": {"source": "synthetic://64x64@20"}})
    config["spool"] = {"flush_interval_s": 0.05, "detections": True}
    first = agents.start(config)
    deadline = time.monotonic() + SOON_S
    while "camera scene: online" not in agents.log(0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(1.0)  # on purpose: what is in memory only may be lost
    first.kill()
    first.wait(SOON_S)
    broker.start()
    with Subscriber(broker.port, "a/d1/#", qos=1) as reader:
        second = agents.start(config)

        def both(messages):
            live = [m for m in messages if m.topic.endswith("detections")]
            return any(not m.json["replay"] for m in live)

        reader.wait_for(both, SOON_S)
        second.send_signal(signal.SIGTERM)
        second.wait(SOON_S)
        messages = list(
            reader.wait_for(lambda all_: any(b'"stopping","data"' in m.payload for m in all_), 10)
        )
    validate(messages)
    events = [m.json for m in messages if m.topic.endswith("/events")]
    old = [e for e in events if e["boot"] == events[0]["boot"]]
    assert [e["seq"] for e in old] == list(range(len(old)))
    assert all(e["replay"] for e in old)
    assert old[0]["what"] == "started"
    assert any(e["what"] == "camera scene: online" for e in old)
    new = [e for e in events if e["boot"] != events[0]["boot"]]
    assert new[0]["what"] == "started"
    assert "stopping" in [e["what"] for e in new]
    by_boot = defaultdict(list)
    for m in messages:
        if m.topic.endswith("detections"):
            by_boot[m.json["boot"]].append(m.json)
    assert list(by_boot) == [old[0]["boot"], new[0]["boot"]]
    for found in by_boot.values():
        assert [m["seq"] for m in found] == list(range(len(found)))
        assert all(a["ts"] < b["ts"] for a, b in pairwise(found))
    assert len(by_boot[old[0]["boot"]]) >= 10


@pytest.fixture
def disk(tmp_path):
    yield from small_disk(tmp_path, 4096)


def started(link: AckLink, folder: Path) -> tuple[WatchedSpool, Events]:
    config = SpoolConfig.model_validate({"flush_interval_s": 0.05})
    spool = WatchedSpool(link, Topics("p", "d"), "d", "b", config, folder)
    events = Events(spool.take_event)
    spool.start(events.tell)
    return spool, events


def tell(spool: Spool, count: int) -> None:
    for number in range(count):
        spool.take_event(Event("agent", "info", f"event {number}", {"pad": "x" * 2000}))


def whats(link: AckLink) -> list[str]:
    return [t.json["what"] for t in link.taken if t.json["what"].startswith("event")]


def test_a_full_disk_costs_only_the_durability_and_is_used_again_once_there_is_room(
    disk, monkeypatch
):
    monkeypatch.setattr("agent.spooldisk.WRITE_RETRY_S", 0.2)
    ballast = disk.folder / "ballast"
    ballast.write_bytes(bytes(3_600_000))
    link = AckLink(connected=False)
    spool, events = started(link, disk.folder / "spool")
    tell(spool, 400)
    spool.until(lambda: spool.counters()["failures"])
    assert "full" in str(spool.counters()["disk"])
    ballast.unlink()
    spool.until(lambda: spool.counters()["disk_messages"] >= 400)
    link.connect()
    link.wait_for(402)
    assert whats(link) == [f"event {n}" for n in range(400)]
    assert [e.severity for e in events.recent() if e.kind == "spool"] == ["warning", "info"]
    spool.close(1)


def test_a_small_disk_is_never_full_of_what_the_spool_has_sent(disk):
    """More goes through than has room, while what waits at a time is little."""
    link = AckLink(connected=False)
    spool, _ = started(link, disk.folder / "spool")
    for number in range(30):
        link.connected = False
        tell(spool, 100)
        spool.until(lambda: spool.counters()["memory_messages"] == 0)
        link.connect()
        count = (number + 1) * 100
        spool.until(lambda c=count: spool.counters()["acknowledged"] >= c)
    assert spool.counters()["failures"] == 0
    assert spool.counters()["written"] >= 3000
    spool.close(1)


def test_after_a_restart_on_a_full_disk_what_is_on_it_is_sent_before_what_is_new(disk):
    away = AckLink(connected=False)
    first, _ = started(away, disk.folder / "spool")
    tell(first, 100)
    first.until(lambda: first.counters()["disk_messages"] == 100)
    first.close(0)
    with contextlib.suppress(OSError), (disk.folder / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    link = AckLink(connected=False)
    second, _ = started(link, disk.folder / "spool")
    tell(second, 20)
    second.until(lambda: second.counters()["failures"])
    assert second.counters()["disk_messages"] == 100
    link.connect()
    link.wait_for(121)
    assert whats(link) == [f"event {n}" for n in (*range(100), *range(20))]
    second.close(1)


def test_a_disk_that_becomes_read_only_costs_only_the_durability(disk):
    link = AckLink(connected=False)
    spool, events = started(link, disk.folder / "spool")
    spool.until(lambda: spool.counters()["disk"] == "ok")
    spool.close(0)
    disk.read_only()
    spool, events = started(link, disk.folder / "spool")
    spool.until(lambda: spool.counters()["failures"])
    tell(spool, 50)
    link.connect()
    link.wait_for(51)
    assert whats(link) == [f"event {n}" for n in range(50)]
    assert [e.severity for e in events.recent() if e.kind == "spool"] == ["warning"]
    spool.close(1)
