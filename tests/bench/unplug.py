"""The plug is pulled again and again: how soon it serves again, and whether the spool is whole.

A real agent under load is killed with SIGKILL at random moments, every third time while the broker
is away, so that what it had spooled must come from the disk of the next life.

    scripts/bench unplug --kills 50 --json out/unplug.json
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.bench.spoolground import SOON_S, SpoolGround, is_detection, write
from tests.integration.subscriber import Received, Subscriber

FLUSH_S = 0.2


def is_first(message: Received, known: set[str]) -> bool:
    """Whether it is a detection of a life that nothing was heard of yet."""
    return is_detection(message) and message.json["boot"] not in known


def drill(folder: Path, kills: int) -> dict[str, Any]:
    """Kill, and look what came."""
    mqtt = {"telemetry_interval_s": 1, "reconnect_initial_s": 0.1, "reconnect_max_s": 0.5}
    lives = SpoolGround(folder, mqtt, {"flush_interval_s": FLUSH_S})
    broker = lives.broker
    choose = random.Random(1)
    rest = threading.Event()
    known: set[str] = set()
    serving_s: list[float] = []
    with Subscriber(broker.port, "s/d/#", qos=1) as reader:
        for life in range(kills + 1):
            began = time.monotonic()
            agent = lives.start()
            try:
                seen = reader.wait_for(
                    lambda all_: bool(all_) and is_first(all_[-1], known), SOON_S
                )
                serving_s.append(time.monotonic() - began)
                known.add(seen[-1].json["boot"])
                rest.wait(choose.uniform(0.05, 1.5))
                if life == kills:
                    rest.wait(3)
                elif life % 3 == 2:
                    broker.kill()
                    rest.wait(choose.uniform(0.3, 1.5))
            finally:
                agent.kill()
                agent.wait(SOON_S)
            if life % 3 == 2 and life != kills:
                broker.start()
                rest.wait(0.3)
        messages = list(reader.messages)
    broker.kill()
    return {"kills": kills, **account(messages), "serving_again_s": spread(serving_s)}


def spread(values: list[float]) -> dict[str, float]:
    """Median and worst."""
    return {"median": round(statistics.median(values), 2), "max": round(max(values), 2)}


def account(messages: list[Received]) -> dict[str, Any]:
    """What is missing, repeated, out of order."""
    by_boot: dict[str, list[int]] = defaultdict(list)
    damaged = failures = replayed = 0
    for message in messages:
        if is_detection(message):
            by_boot[message.json["boot"]].append(message.json["seq"])
            replayed += message.json["replay"]
        elif message.topic.endswith("/telemetry"):
            damaged = max(damaged, message.json["spool"]["damaged_files"])
            failures = max(failures, message.json["spool"]["failures"])
    gaps = disorder = 0
    for seqs in by_boot.values():
        first = list(dict.fromkeys(seqs))
        gaps += max(first) + 1 - len(first)
        disorder += first != sorted(first)
    total = sum(map(len, by_boot.values()))
    return {
        "lives_heard": len(by_boot),
        "messages": total,
        "replayed": replayed,
        "repeated": total - sum(len(set(seqs)) for seqs in by_boot.values()),
        "gaps": gaps,
        "lives_out_of_order": disorder,
        "damaged_files": damaged,
        "disk_failures": failures,
    }


def main() -> None:
    """Drill, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="on the disk to use")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        write(drill(Path(name), options.kills), options)


if __name__ == "__main__":
    main()
