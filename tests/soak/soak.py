"""A soak: chaos around a real agent for a while, then the invariants; JSON and a picture."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.soak.account import account
from tests.soak.chaos import Chaos, has_detection
from tests.soak.drill import drill
from tests.soak.ground import PREFIX, Ground, arrivals, write_json
from tests.soak.judge import JUDGED_S, WARM_S, Seen, judge, life_row
from tests.soak.plot import draw

SOON_S = 60.0
POINTS = 600
"""Of each line of the picture, about."""

LONG_S = 2 * (WARM_S + JUDGED_S)
"""A soak that is so long ends the agent in its first third only; the rest is one life, in which
memory has time to grow."""

LIFE_S = 60.0
"""The agent is left alive so long at least, in a shorter soak a sixth of it."""

HELP = """\
what happens
  soak    One trouble follows the other, a second or two apart: broker killed or paused; the line
          to it cut, slow or lossy; camera killed and back with another picture size, frozen, or
          behind a bad line; the agent killed, stopped, frozen for a moment, or frozen until the
          watchdog ends it; its disk full, also while it is killed; its wall clock jumping by up
          to two days, and to 1970. Each kind comes once before any comes twice.
  drill   SIGKILL at random moments under load, with the broker there, slow or away.

what is judged
  Each line of `invariants` in the report, and at the top of the picture: held, BROKEN, or not
  judged (memory and descriptors are judged in lives of ten minutes or more, so not in a short
  soak; one of twenty minutes or more leaves the agent alive after its first third).
  The exit code is 0 if none is broken.

examples
  scripts/soak --minutes 2                        a first look: out/soak.json, out/soak.png
  scripts/soak --minutes 30 --seed 7 --out docs/results      the whole; a seed picks the troubles
  scripts/soak --minutes 8 --folder /tmp/soak     keeps the logs of agent and broker there
  scripts/soak drill --times 50 --out docs/results           drill.json

The spool is on a tmpfs of 4 MiB, which takes root to mount; the jumping clock takes a C compiler.
What cannot be done here is in `missing` of the report. Times depend on the load of the machine:
`machine.load` is in the report too.
"""


def soak(
    folder: Path, seconds: float, seed: int, every: tuple[float, float] = (0.5, 2.0)
) -> dict[str, Any]:
    """Run one.

    Args:
        folder: for everything.
        seconds: of trouble; start and end come on top.
        seed: picks the troubles.
        every: least and most seconds between two.

    Returns:
        The report; `ok`, and in `faults` why not.
    """
    ground = Ground(folder)
    endings_s = seconds / 3 if seconds >= LONG_S else seconds
    chaos = Chaos(ground, seed, min(seconds / 6, LIFE_S), endings_s)
    code = -1
    left: set[tuple[str, str, int]] = set()
    try:
        ground.supervisor.start()
        ground.consumer.wait_for(has_detection, SOON_S)
        chaos.run(seconds, every)
        ground.clock.jump(0)
        wait_empty(ground)
        code = ground.stop_agent()
        left = set(ground.left_on_disk())
        spool_fault = ground.spool_check()
    finally:
        ground.stop_agent()
        ground.close()
    return report(ground, chaos, seconds, seed, code, left, spool_fault)


def wait_empty(ground: Ground) -> None:
    """Until nothing waits any more by the agent's own word, said after now."""
    count = len(ground.consumer.messages)

    def empty(messages: list[Any]) -> bool:
        told = [m for m in messages[count:] if m.topic == f"{PREFIX}/d1/telemetry"]
        spool = told[-1].json.get("spool", {}) if told else {}
        return spool.get("disk_messages") == 0 and has_detection(messages[count:])

    ground.consumer.wait_for(empty, SOON_S)


def report(
    ground: Ground, chaos: Chaos, seconds: float, seed: int, code: int,
    left: set[tuple[str, str, int]], spool_fault: str,
) -> dict[str, Any]:  # fmt: skip
    """What there is to say of it."""
    consumer, supervisor = ground.consumer, ground.supervisor
    found = arrivals(consumer.messages, consumer.times)
    told = account(found, chaos.broker_kills_s)
    left -= {(a.boot, a.stream, a.seq) for a in found}
    telemetry = [
        (at_s - ground.began_s, m.json)
        for m, at_s in zip(consumer.messages, consumer.times, strict=False)
        if m.topic == f"{PREFIX}/d1/telemetry"
    ]
    last = {m["boot"]: m["spool"] for _, m in telemetry if m.get("spool")}
    dropped = sum(sum(s["dropped"].values()) + s["given_up"] for s in last.values())
    seen = Seen(
        told, supervisor.lives, supervisor.crashes, ground.tracebacks(), code, chaos.hangs,
        dropped, len(left), spool_fault,
    )  # fmt: skip
    invariants = judge(seen)
    faults = [f"{i.name}: {i.seen}" for i in invariants if i.ok is False]
    began = ground.began_s
    end_s = max(life.ended_s or 0.0 for life in supervisor.lives) - began
    # A report of half an hour is not to be a hundred times one of a minute.
    step = max(1, math.ceil(end_s / POINTS))
    rates = Counter(int((a.at_s - began) // step) for a in found)
    return {
        "schema": "vigia.soak/2",
        "ok": not faults,
        "faults": [*faults, *told.faults],
        "invariants": [asdict(i) for i in invariants],
        "seconds": seconds,
        "duration_s": round(end_s, 1),
        "seed": seed,
        "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[2], 1)},
        "troubles": dict(Counter(name for *_, name in chaos.log)),
        "missing": [
            *ground.missing,
            "packet loss by netem: a relay makes the waits that TCP would make of it",
        ],
        "account": told.as_dict(),
        "watchdog": [
            {"ended_after_s": round(h.ended_s, 2), "served_after_s": round(h.served_s, 2)}
            for h in chaos.hangs
        ],
        "lives": [life_row(life) for life in supervisor.lives],
        "spool_of_each_run": last,
        "log": [[round(b, 1), round(e, 1), what] for b, e, what in chaos.log],
        "series": {
            "process": [
                [[round(t - began, 1), r, d] for t, r, d in life.samples[::step]]
                for life in supervisor.lives
            ],
            "arrivals": [
                [n * step, round(rates[n] / step, 1)] for n in range(int(end_s // step) + 1)
            ],
            "spooled": [
                [round(t, 1), m["spool"]["disk_messages"]]
                for t, m in telemetry[::step]
                if m.get("spool")
            ],
        },
    }  # fmt: skip


def main() -> int:
    """Run what is asked for, print the short of it, write the whole."""
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("soak", "drill"), default="soak")
    parser.add_argument("--minutes", type=float, default=30.0, help="of trouble (30)")
    parser.add_argument("--times", type=int, default=50, help="kills of a drill (50)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="picks the troubles")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of reports (out)")
    parser.add_argument("--folder", type=Path, help="keep configuration, logs and spool here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigia-soak-") as spare:
        folder = options.folder or Path(spare)
        if options.what == "drill":
            result = drill(folder, options.times, options.seed)
        else:
            result = soak(folder, options.minutes * 60, options.seed)
        write_json(options.out / f"{options.what}.json", result)
        if options.what == "soak":
            draw(result, options.out / "soak.png")
    hidden = ("series", "log", "lives", "spool_of_each_run")
    shown = {key: value for key, value in result.items() if key not in hidden}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
