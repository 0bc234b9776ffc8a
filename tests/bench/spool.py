"""The spool: what a broker that is away costs the pipeline and the flash, and what is lost.

A real agent with a synthetic camera at 30 fps spools its detections (the same road as events, as
many messages as asked); the broker is killed for a while and comes back. The latencies are those
that the messages themselves carry, before and while the broker was away.

    scripts/bench spool --seconds 600 --json out/spool.json

A loss at the reader need not be one of the agent. `--reader late` lets the agent come back before
the reader, `--queued 1000` gives the broker its default bound; `broker` in the report says how many
messages it took and gave.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.spoolfile import SpoolFile
from agent.spoolitem import Item
from tests.bench.spoolground import RATE_HZ, SOON_S, SpoolGround, write
from tests.integration.subscriber import Received, Subscriber, until

if TYPE_CHECKING:
    import subprocess

BODY_BYTES = 300
LATE_MESSAGES = 100
"""A late reader comes when the broker has taken so many without it."""

BASELINE_S = 30.0
"""The broker is there for so long at the most before it is taken away."""


class Reader(Subscriber):
    """Can be told not to come back to a broker; counts how often it came."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "s/#", qos=1)
        self._may_come = threading.Event()
        self._may_come.set()
        self._stays = threading.Event()
        self.subscriptions = 0

    def stay_away(self) -> None:
        """Come back only after `come`; there is no connection when this returns."""
        self._stays.clear()
        self._may_come.clear()
        assert self._stays.wait(SOON_S)

    def come(self) -> None:
        """Connect again."""
        self._may_come.set()

    def _set_subscribed(self, value: bool) -> None:
        super()._set_subscribed(value)
        self.subscriptions += value
        # Called after every connection and every attempt.
        if not value and not self._may_come.is_set():
            self._stays.set()
            self._may_come.wait()


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def written_bytes(pid: int) -> int:
    """What a process has caused to be written to disks."""
    text = Path(f"/proc/{pid}/io").read_text()
    return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])


def is_live(message: Received, topic: str, since: float) -> bool:
    """Whether it is a detection of after a time that did not have to wait."""
    if message.topic != topic:
        return False
    said = message.json
    return bool(said["ts"] > since and not said["replay"])


def outage(folder: Path, seconds: float, mode: str, queued: int) -> dict[str, Any]:
    """Run the agent, take the broker away for a while, and read everything that comes."""
    ground = SpoolGround(folder, {"telemetry_interval_s": 2, "reconnect_max_s": 1}, {}, queued)
    broker = ground.broker
    rest = threading.Event()
    with Reader(broker.port) as reader:
        topic = "s/d/cam/scene/detections"
        agent = ground.start()
        try:
            reader.wait_for(lambda _: len(reader.on(topic)) > RATE_HZ * 3, SOON_S)
            rest.wait(min(seconds, BASELINE_S))
            online = written_bytes(agent.pid)
            away_at = time.time()
            broker.kill()
            rest.wait(seconds)
            flash = written_bytes(agent.pid) - online
            back_at = time.time()
            bring_back(ground, reader, agent, late=mode == "late")
            began = time.monotonic()
            reader.wait_for(lambda all_: is_live(all_[-1], topic, back_at), SOON_S + seconds)
            caught_up_s = time.monotonic() - began
            rest.wait(5)
            agent.send_signal(signal.SIGTERM)
            agent.wait(SOON_S)
            rest.wait(1)
            found = [m.json for m in reader.on(topic)]
            spool = [m.json["spool"] for m in reader.on("s/d/telemetry")][-1]
        finally:
            agent.kill()
            broker.kill()
    first = list({m["seq"]: m for m in found}.values())
    seqs = [m["seq"] for m in first]
    # The reader is away while the broker is: what was acknowledged just before may miss it.
    before = [m["lat_ms"]["total"] for m in first if away_at - BASELINE_S < m["ts"] < away_at]
    during = [m["lat_ms"]["total"] for m in first if away_at + 1 < m["ts"] < back_at]
    return {
        "seconds_away": seconds,
        "reader": mode,
        "max_queued_messages": queued,
        "broker": ground.broker_says(),
        # Two: at the start and after the outage. With more, what was on its way to it is gone.
        "reader_subscriptions": reader.subscriptions,
        "messages": len(seqs),
        "first_missing": sorted(set(range(max(seqs))) - set(seqs))[:5],
        "lost": (max(seqs) + 1 - len(seqs)) if seqs else None,
        "in_order": seqs == sorted(seqs),
        "repeated": len(found) - len(first),
        "messages_while_away": len(during),
        "rate_hz": round(len(during) / seconds, 1),
        "p95_ms_before": round(p95(before), 2),
        "p95_ms_away": round(p95(during), 2),
        "p50_ms_before": round(statistics.median(before), 2),
        "p50_ms_away": round(statistics.median(during), 2),
        "caught_up_s": round(caught_up_s, 2),
        "bytes_written_while_away": flash,
        "bytes_written_per_message": round(flash / max(1, len(during))),
        "payload_bytes_per_message": round(
            statistics.mean(len(json.dumps(m)) for m in first) if first else 0
        ),
        "spool": spool,
    }


def bring_back(
    ground: SpoolGround, reader: Reader, agent: subprocess.Popen[bytes], *, late: bool
) -> None:
    """Start the broker; what it takes while nobody is subscribed it gives to nobody."""
    if not late:
        agent.send_signal(signal.SIGSTOP)
        ground.broker.start()
        reader.wait_subscribed(SOON_S)
        agent.send_signal(signal.SIGCONT)
        return
    reader.stay_away()
    before = ground.broker_says()["taken"]
    ground.broker.start()
    until(lambda: ground.broker_says()["taken"] >= before + LATE_MESSAGES, SOON_S)
    reader.come()
    reader.wait_subscribed(SOON_S)


def amplification(folder: Path, batch: int, messages: int = 1800) -> dict[str, Any]:
    """Bytes that reach the disk for each message of `BODY_BYTES`, written and later deleted."""
    file = SpoolFile(folder / f"batch{batch}.db")
    body = os.urandom(BODY_BYTES)
    items = [Item(n, "b1234567", "", n, 0, True, 1e9 + n, body) for n in range(messages)]
    before = written_bytes(os.getpid())
    began = time.monotonic()
    for first in range(0, messages, batch):
        file.change(items[first : first + batch], ())
    took = time.monotonic() - began
    added = written_bytes(os.getpid()) - before
    for first in range(0, messages, batch):
        file.change((), range(first, min(messages, first + batch)))
    file.close()
    whole = written_bytes(os.getpid()) - before
    return {
        "batch": batch,
        "body_bytes": BODY_BYTES,
        "bytes_per_message_added": round(added / messages),
        "bytes_per_message_added_and_deleted": round(whole / messages),
        "ms_per_transaction": round(took / (messages / batch) * 1000, 2),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--reader", choices=("ready", "late"), default="ready")
    parser.add_argument("--queued", type=int, default=0, help="Mosquitto's max_queued_messages")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        report = {
            "write_amplification": [amplification(folder, batch) for batch in (1, 30, 300)],
            "outage": outage(folder, options.seconds, options.reader, options.queued),
        }
    write(report, options)


if __name__ == "__main__":
    main()
