"""What a live camera notices of an update, and what becomes of bad models.

    python -m tests.bench.update [--releases 6] [--fps 20] [--out out/update.json]

A real agent, a real broker, signed and encrypted bundles. Releases that answer alike are pushed one
after the other; a frame is late by what its result is older than the median of quiet times, and
counts as late if that is more than a frame's period. Then bad models are pushed, and what the agent
says of each is kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.bundle.documents import Report
from tests.bench.machine import machine
from tests.integration.agents import Agents
from tests.integration.mosquitto import Mosquitto
from tests.integration.subscriber import Received, Subscriber
from tests.integration.updates import VIDEO, Fleet
from tests.vectors import conveyors

LONG_S = 180.0
SETTLE_S = 0.5
"""Before and after a switch, what still counts as the switch."""

MS = 1e3

GATE = {"metric": "map50_95", "max_drop_vs_active": 0.05, "max_latency_ratio": 2.5}
RULES = {"shadow": {"seconds": 2.0}, "canary": {"seconds": 4.0}, "gate": GATE}

BAD: dict[str, Callable[[], bytes]] = {
    "accuracy halved": conveyors.halved,
    "latency x 5": conveyors.slow,
    "NaN": conveyors.not_a_number,
    "takes all memory": conveyors.hungry,
    "no model at all": lambda: b"not a model",
}


def frames(messages: Sequence[Received]) -> list[dict[str, Any]]:
    """Detection messages, in order."""
    return [m.json for m in messages if m.topic.endswith("/cam/belt/detections")]


def switches(found: Sequence[dict[str, Any]]) -> list[float]:
    """Capture times of the first frames of another model."""
    pairs = itertools.pairwise(found)
    return [b["ts"] for a, b in pairs if a["model"]["digest"] != b["model"]["digest"]]


def noticed(found: Sequence[dict[str, Any]], fps: float) -> dict[str, Any]:
    """Frames lost and late around the switches, and at other times."""
    at = switches(found)
    near = [any(abs(m["ts"] - t) < SETTLE_S for t in at) for m in found]
    ages = [m["lat_ms"]["total"] for m in found]
    usual = statistics.median(age for age, n in zip(ages, near, strict=True) if not n)
    late = [age - usual > MS / fps for age in ages]
    return {
        "switches": len(at),
        "frames": len(found),
        "usual_ms": round(usual, 1),
        "lost_at_switches": sum(m["dropped"] for m, n in zip(found, near, strict=True) if n),
        "lost_elsewhere": sum(m["dropped"] for m, n in zip(found, near, strict=True) if not n),
        "late_at_switches": sum(x for x, n in zip(late, near, strict=True) if n),
        "late_elsewhere": sum(x for x, n in zip(late, near, strict=True) if not n),
        "latest_at_switches_ms": round(
            max((a for a, n in zip(ages, near, strict=True) if n), default=usual) - usual, 1
        ),
        "gaps_in_seq": sum(b["seq"] - a["seq"] != 1 for a, b in itertools.pairwise(found)),
    }


def revision(number: int) -> bytes:
    """Another digest, the same answers."""
    return conveyors.revised(str(number))


class Bench:
    """One agent and its fleet."""

    def __init__(self, folder: Path, fps: float) -> None:
        self._broker = Mosquitto(folder / "broker", {"plain": ("allow_anonymous true",)})
        self._folder = folder
        self._fps = fps
        self._count = 0

    def run(self, releases: int) -> dict[str, Any]:
        """Everything, in order."""
        prefix = "bench/v1"
        agents = Agents(self._folder)
        with self._broker, Subscriber(self._broker.port, f"{prefix}/#") as reader:
            self._fleet = Fleet(self._folder, self._broker.port, prefix)
            self._reader = reader
            camera = {"source": str(VIDEO), "loop": True, "realtime": True, "fps": self._fps}
            model = conveyors.write(self._folder, "configured.onnx", conveyors.original())
            agents.start(self._fleet.config(model, {"belt": camera}))
            try:
                reader.wait_for(lambda messages: len(frames(messages)) > self._fps, LONG_S)
                good = [self._push(revision(number)) for number in range(releases)]
                switch = noticed(frames(reader.messages), self._fps)
                bad = {name: self._push(make()) for name, make in BAD.items()}
            finally:
                agents.kill()
        return {
            "good": [report.outcome for report in good],
            "switch": switch,
            "bad": {
                name: {
                    "outcome": report.outcome,
                    "reason": report.reason,
                    "figures": json.loads(report.figures),
                }
                for name, report in bad.items()
            },
        }

    def _push(self, model: bytes) -> Report:
        self._count += 1
        files = {"model.onnx": model, **conveyors.golden(16)}
        self._fleet.push(self._fleet.controller.release(self._count, files=files, **RULES))
        messages = self._reader.wait_for(
            lambda found: len(self._fleet.reports(found)) >= self._count, LONG_S
        )
        report = self._fleet.reports(messages)[-1]
        print(f"release {self._count}: {report.outcome} {report.reason}", file=sys.stderr)
        return report


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached."""
    switch, bad = found["switch"], found["bad"]
    ends = ("REJECTED", "ROLLED_BACK")
    refused = sum(b["outcome"] in ends and bool(b["reason"]) for b in bad.values())
    return [
        {"what": "frames lost at switches", "figure": switch["lost_at_switches"], "target": 0,
         "met": switch["lost_at_switches"] == 0},
        {"what": "frames late, a switch",
         "figure": switch["late_at_switches"] / max(1, switch["switches"]),
         "target": "<= 1", "met": switch["late_at_switches"] <= switch["switches"]},
        {"what": "bad models refused or rolled back", "figure": f"{refused} of {len(bad)}",
         "target": "all, with the reason", "met": refused == len(bad)},
    ]  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=6)
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=Path("out/update.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = Bench(Path(folder), options.fps).run(options.releases)
    result = {"machine": machine(), "fps": options.fps, **found, "targets": targets(found)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for target in result["targets"]:
        print(f"{target['what']}: {target['figure']} (target {target['target']}) "
              f"{'met' if target['met'] else 'MISSED'}")  # fmt: skip
    print(json.dumps(found["switch"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
