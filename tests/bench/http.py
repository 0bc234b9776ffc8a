"""What being looked at costs: frames a second without HTTP, with a page, with a live view.

    scripts/bench http MODEL [--seconds 3] [--rounds 8] [--out out/http.json]

A source that is never empty is analysed as fast as it goes. Whoever looks does so from a process of
its own on the same cores. Each time of being looked at lies between two without HTTP, whose mean it
is compared with; what is told is the median of these ratios, and their quarters. Other work on the
machine makes them wide: processor time of the threads that serve HTTP, in percent of all cores, is
hardly changed by it, and is what is taken from the cameras where all cores are busy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.benchmark import ReplayFeed, noise_pictures
from agent.config import ModelConfig
from agent.confighttp import HttpConfig
from agent.http.ports import Show, Sources
from agent.http.server import HttpServer
from agent.models import load_reference
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.plans import PlanRequest, Plans, default_cache_dir
from tests.bench.machine import machine

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
READER = "tests.bench.reader"
CAMERA, SLOT = "camera", "bench"
WAYS = ("page", "live")
TARGETS = {"page": 1.0, "live": 5.0}
"""Percent of the frames a second."""
SETTLE_S = 0.5
SERVING = ("http", "live-", "AnyIO")
"""How the names of threads begin that serve HTTP."""


class Nowhere:
    """A sink that keeps nothing."""

    def publish(self, _result: object) -> None:
        """Forget it."""


def measure(model: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Frames a second by way of being looked at."""
    config = ModelConfig.model_validate({"path": model})
    plans = Plans(PlanRequest(SLOT, config, True, default_cache_dir()))
    feed = ReplayFeed(CAMERA, noise_pictures(1280, 720), 10**9, 1000.0)
    pipeline = Pipeline(
        cameras={CAMERA: CameraPlan(feed, SLOT)},
        models={SLOT: lambda: load_reference(plans)},
        sink=Nowhere(),
        queue_frames=1,
    )
    pipeline.load()
    pipeline.start()

    def show(watcher: Show | None) -> None:
        for runner in pipeline.runners.values():
            runner.tap.beside = watcher

    sources = Sources(
        identity=lambda: {"device": "bench", "boot": "0", "version": "0", "started": 0.0},
        cameras=lambda: {CAMERA: {"state": "online"}},
        stats=pipeline.stats.counted,
        models=lambda: {SLOT: {"name": "bench"}},
        show=show,
    )
    ratios: dict[str, list[float]] = {way: [] for way in WAYS}
    dearer: dict[str, list[float]] = {way: [] for way in WAYS}
    serving: dict[str, list[float]] = {way: [] for way in WAYS}
    rates: list[float] = []
    before = _look(pipeline, seconds)
    for number in range(rounds):
        for way in sorted(WAYS, reverse=bool(number % 2)):
            with _looked_at(sources, way):
                found = _look(pipeline, seconds)
            after = _look(pipeline, seconds)
            ratios[way].append(2 * found.fps / (before.fps + after.fps))
            dearer[way].append(2 * found.frame_s / (before.frame_s + after.frame_s))
            serving[way].append(found.serving_percent)
            rates.append(before.fps)
            before = after
    pipeline.stop()
    pipeline.wait()
    pipeline.close()
    return {
        "machine": machine(),
        "fps": round(statistics.median(rates), 1),
        "cost_percent": {way: _spread([100 * (1 - r) for r in ratios[way]]) for way in WAYS},
        "dearer_frames_percent": {
            way: _spread([100 * (r - 1) for r in dearer[way]]) for way in WAYS
        },
        "serving_percent_of_all_cores": {way: _spread(serving[way]) for way in WAYS},
    }


@dataclass(frozen=True, slots=True)
class Looked:
    """What there was in a while.

    Attributes:
        fps: frames a second.
        frame_s: processor time of the whole process by frame, seconds.
        serving_percent: what threads that serve HTTP took of all cores.
    """

    fps: float
    frame_s: float
    serving_percent: float


def _look(pipeline: Pipeline, seconds: float) -> Looked:
    rest = threading.Event()
    rest.wait(SETTLE_S)
    results, took, all_, began = (
        _results(pipeline), _serving_s(), time.process_time(), time.monotonic()
    )  # fmt: skip
    rest.wait(seconds)
    passed = time.monotonic() - began
    frames = max(1, _results(pipeline) - results)
    share = (_serving_s() - took) / passed / len(os.sched_getaffinity(0))
    return Looked(frames / passed, (time.process_time() - all_) / frames, 100 * share)


def _results(pipeline: Pipeline) -> int:
    return pipeline.stats.counted()[CAMERA].results


def _serving_s() -> float:
    """Processor time of the threads that serve HTTP, seconds."""
    total = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith(SERVING):
            with contextlib.suppress(OSError):
                told = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
                total += int(told.split()[0]) / 1e9
    return total


@contextlib.contextmanager
def _looked_at(sources: Sources, way: str) -> Iterator[None]:
    server = HttpServer(HttpConfig(port=0), sources)
    if not server.start():
        raise SystemExit(server.reason)
    url = f"http://127.0.0.1:{server.port}"
    command = [sys.executable, "-m", READER, way, url, CAMERA]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert reader.stdout is not None
    try:
        if not reader.stdout.readline():
            raise SystemExit("whoever was to look has ended")
        yield
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()
        server.close(3.0)


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 2), "quarter": round(low, 2), "three_quarters": round(high, 2)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "http.json")
    args = parser.parse_args()
    report = measure(args.model, args.seconds, max(2, args.rounds))
    report["targets"] = [
        {"what": f"{way}, percent of fps", "figure": figure, "target": f"< {limit:g}",
         "met": figure < limit}
        for way, limit in TARGETS.items()
        for figure in (report["cost_percent"][way]["median"],)
    ]  # fmt: skip
    text = json.dumps(report, indent=2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
