"""A soak: chaos for a while, then the invariants; writes a JSON report and a drawing.

    scripts/soak --minutes 30 --out docs/results
    scripts/soak drill --times 50

What is thrown at it: kill, stop and continue of broker and camera; kill, SIGTERM and SIGSTOP of the
agent; a line that is cut, slow or lossy; another picture size; a full disk. Clocks are not set: a
container may not, and the machine's own is not ours to change.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak.account import account, flat
from tests.soak.ground import PREFIX, Ground, arrivals, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

RSS_ALLOWED = 0.02
WARM_S = 5.0
"""The first seconds of a life are the start, not the growth."""
DRAIN_S = 20.0
"""Everything that waits has come within this after the last trouble."""
SIZES = ((320, 240), (640, 480), (160, 120))


class Chaos:
    """Picks and does one trouble after the other."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self.ground = ground
        self.random = random.Random(seed)
        self.broker_kills_s: list[float] = []
        self.done: Counter[str] = Counter()
        self.log: list[tuple[float, str]] = []
        self.troubles: dict[str, tuple[int, Callable[[], None]]] = {
            "broker killed": (2, self._kill_broker),
            "broker paused": (3, self._pause_broker),
            "line cut": (4, self._cut),
            "line slow and lossy": (3, self._slow),
            "agent killed": (1, self.ground.kill_agent),
            "agent stopped": (1, lambda: self.ground.kill_agent(signal.SIGTERM)),
            "agent frozen": (1, self._freeze),
        }
        if ground.rtsp is not None:
            self.troubles["camera killed, other size"] = (3, self._other_size)
            self.troubles["camera frozen"] = (2, self._freeze_camera)
        if ground.has_disk:
            self.troubles["disk full"] = (2, self._full)

    def run(self, seconds: float, every: tuple[float, float]) -> None:
        """Trouble until the time is over; each kind once before any comes twice."""
        until = time.monotonic() + seconds
        first = list(self.troubles)
        self.random.shuffle(first)
        while time.monotonic() < until:
            self._rest(self.random.uniform(*every))
            names = list(self.troubles)
            weights = [self.troubles[name][0] for name in names]
            name = first.pop() if first else self.random.choices(names, weights)[0]
            self.log.append((time.monotonic() - self.ground.began_s, name))
            self.troubles[name][1]()
            self.done[name] += 1

    def _rest(self, seconds: float) -> None:
        time.sleep(seconds)

    def _kill_broker(self) -> None:
        self.broker_kills_s.append(time.monotonic())
        self.ground.broker.kill()
        self._rest(self.random.uniform(0.5, 3))
        self.ground.broker.start()

    def _pause_broker(self) -> None:
        self.ground.broker.pause()
        self._rest(self.random.uniform(0.5, 4))
        self.ground.broker.resume()

    def _cut(self) -> None:
        self.ground.link.cut()
        self._rest(self.random.uniform(0.2, 5))
        self.ground.link.join()

    def _slow(self) -> None:
        link = self.ground.link
        link.delay_s, link.loss = self.random.uniform(0.02, 0.1), self.random.uniform(0.01, 0.1)
        self._rest(self.random.uniform(1, 4))
        link.delay_s = link.loss = 0.0

    def _freeze(self) -> None:
        process = self.ground.agent
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        self._rest(self.random.uniform(0.5, 3))
        process.send_signal(signal.SIGCONT)

    def _other_size(self) -> None:
        rtsp = self.ground.rtsp
        assert rtsp is not None
        rtsp.kill()
        rtsp.size = self.random.choice([size for size in SIZES if size != rtsp.size])
        self._rest(self.random.uniform(0.2, 2))
        rtsp.start()

    def _freeze_camera(self) -> None:
        rtsp = self.ground.rtsp
        assert rtsp is not None
        rtsp.signal(signal.SIGSTOP)
        self._rest(self.random.uniform(1, 3))
        rtsp.signal(signal.SIGCONT)

    def _full(self) -> None:
        self.ground.fill_disk()
        cut = self.random.random() < 0.5
        if cut:
            self.ground.link.cut()
        self._rest(self.random.uniform(1, 3))
        self.ground.free_disk()
        self.ground.link.join()


def soak(
    folder: Path, seconds: float, seed: int, every: tuple[float, float] = (1.0, 5.0)
) -> dict[str, Any]:
    """Run one; the report says `ok` and, in `faults`, why not."""
    ground = Ground(folder)
    chaos = Chaos(ground, seed)
    code = -1
    try:
        ground.start()
        ground.consumer.wait_for(has_detection, 60)
        chaos.run(seconds, every)
        quiet = len(ground.consumer.messages)
        ground.consumer.wait_for(lambda messages: has_detection(messages[quiet:]), 60)
        time.sleep(min(DRAIN_S, seconds / 4))
    finally:
        code = ground.close()
    return report(ground, chaos, seconds, seed, code)


def has_detection(messages: list[Any]) -> bool:
    return any(m.topic.endswith("/detections") for m in messages)


def report(ground: Ground, chaos: Chaos, seconds: float, seed: int, code: int) -> dict[str, Any]:
    consumer = ground.consumer
    told = account(arrivals(consumer.messages, consumer.times), chaos.broker_kills_s)
    lives = []
    faults = [*told.faults, *(f"the agent ended by itself: {c}" for c in ground.crashes)]
    for samples in ground.lives:
        if not samples:
            continue
        warm = [s for s in samples if s[0] >= samples[0][0] + WARM_S]
        rss, rss_flat = flat([(t, float(r)) for t, r, _ in warm], RSS_ALLOWED)
        fds, fds_flat = flat([(t, float(d)) for t, _, d in warm], 0.0)
        # Connections come and go: a few descriptors more at one moment are no leak.
        fds_flat = fds_flat or max(d for *_, d in warm) - min(d for *_, d in warm) <= 8
        lives.append({"seconds": len(samples), "rss_growth": round(rss, 4),
                      "rss_bytes": samples[-1][1], "descriptors_growth": round(fds, 4),
                      "descriptors": samples[-1][2]})  # fmt: skip
        # The growth of a short life is its start.
        if len(warm) >= 120:
            faults += [] if rss_flat else [f"memory grew by {rss:.1%} in {len(warm)} s"]
            faults += [] if fds_flat else [f"descriptors grew by {fds:.1%} in {len(warm)} s"]
    tracebacks = ground.tracebacks()
    if tracebacks:
        faults.append(f"{tracebacks} unhandled exceptions in the log")
    if code:
        faults.append(f"asked to stop, the agent ended with {code}")
    telemetry = [m.json for m in consumer.messages if m.topic == f"{PREFIX}/d1/telemetry"]
    return {
        "schema": "vigia.soak/1",
        "ok": not faults,
        "faults": faults,
        "seconds": seconds,
        "seed": seed,
        "troubles": dict(chaos.done),
        "missing": [*ground.missing, "clock jumps: not ours to set",
                    "packet loss by netem: made in a relay, as TCP shows it"],
        "account": told.as_dict(),
        "starts": len(ground.lives),
        "crashes": ground.crashes,
        "unhandled_exceptions": tracebacks,
        "lives": lives,
        "spool": telemetry[-1].get("spool") if telemetry else None,
        "log": [[round(at, 1), what] for at, what in chaos.log],
        "samples": [[[round(t, 1), r, d] for t, r, d in life] for life in ground.lives],
    }  # fmt: skip


def draw(report: dict[str, Any], path: Path) -> None:
    """Memory and descriptors over time, with each trouble as a line."""
    import matplotlib as mpl  # noqa: PLC0415 - only where drawn

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (memory, files) = plt.subplots(2, 1, sharex=True, figsize=(10, 6))
    for life in report["samples"]:
        if life:
            times = [t for t, *_ in life]
            memory.plot(times, [r / 2**20 for _, r, _ in life], color="#2a6fbb")
            files.plot(times, [d for *_, d in life], color="#2e933c")
    for at, what in report["log"]:
        for axes in (memory, files):
            axes.axvline(at, color="#d1495b" if "agent" in what else "#c9c9d1", linewidth=0.6)
    memory.set_ylabel("resident memory, MB")
    files.set_ylabel("descriptors")
    files.set_xlabel("seconds; grey: trouble around the agent, red: at the agent itself")
    memory.set_ylim(bottom=0)
    files.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def drill(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Pull the plug again and again under load: how soon does it serve, is the spool whole?"""
    ground = Ground(folder)
    dice = random.Random(seed)
    serving: list[float] = []
    faults: list[str] = []
    try:
        began = time.monotonic()
        ground.start()
        for number in range(times):
            before = len(ground.consumer.messages)
            boots = {m.json["boot"] for m in ground.consumer.messages[:before] if is_detection(m)}
            ground.consumer.wait_for(
                lambda messages, b=boots: any(
                    is_detection(m) and m.json["boot"] not in b for m in messages
                ),
                30,
            )
            serving.append(time.monotonic() - began)
            # Every third time the broker is away while the plug is pulled: the spool is in use.
            away = number % 3 == 2
            if away:
                ground.link.cut()
            time.sleep(dice.uniform(0.1, 2.0))
            if not away and number % 3:
                ground.link.delay_s = 0.05
            ground.kill_agent()
            began = time.monotonic()
            ground.link.delay_s = 0.0
            ground.link.join()
            if fault := ground.spool_check():
                faults.append(f"kill {number}: {fault}")
        time.sleep(5)
    finally:
        code = ground.close()
    told = account(arrivals(ground.consumer.messages, ground.consumer.times))
    faults += told.faults + ground.crashes
    if code:
        faults.append(f"asked to stop, the agent ended with {code}")
    return {
        "schema": "vigia.drill/1",
        "ok": not faults,
        "faults": faults,
        "kills": times,
        "seed": seed,
        "account": told.as_dict(),
        "serving_s": {
            "median": round(statistics.median(serving), 2),
            "max": round(max(serving), 2),
            "above_3": sum(s > 3 for s in serving),
        },
        "unhandled_exceptions": ground.tracebacks(),
    }


def is_detection(message: Any) -> bool:
    return bool(message.topic.endswith("/detections"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="?", choices=("soak", "drill"), default="soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--times", type=int, default=50, help="kills of a drill")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--folder", type=Path, help="keep logs here")
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
    shown = {k: v for k, v in result.items() if k not in ("samples", "log", "lives")}
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
