"""What being looked at costs: frames a second without HTTP, with a page, with a live view.

    python -m tests.bench.http MODEL [--seconds 4] [--rounds 3]

A source that is never empty is analysed as fast as it goes; the three ways take turns, and medians
are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from agent.benchmark import ReplayFeed, noise_pictures
from agent.config import ModelConfig
from agent.confighttp import HttpConfig
from agent.http.ports import Show, Sources
from agent.http.server import HttpServer
from agent.models import load_reference
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.plans import PlanRequest, Plans, default_cache_dir
from tests.bench.machine import machine

CAMERA, SLOT = "camera", "bench"
SCRAPE_S = 2.0


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
    rates: dict[str, list[float]] = {"nobody": [], "page": [], "live": []}
    for _ in range(rounds):
        for way, found in rates.items():
            server = None
            if way != "nobody":
                server = HttpServer(HttpConfig(port=0), sources)
                server.start()
            stop = threading.Event()
            reader = threading.Thread(target=_read, args=(server, way, stop))
            reader.start()
            stop.wait(0.5)
            before, began = pipeline.stats.counted()[CAMERA].results, time.monotonic()
            stop.wait(seconds)
            after = pipeline.stats.counted()[CAMERA].results
            found.append((after - before) / (time.monotonic() - began))
            stop.set()
            if server is not None:
                server.close(3.0)
            reader.join(10.0)
    pipeline.stop()
    pipeline.wait()
    pipeline.close()
    medians = {way: statistics.median(found) for way, found in rates.items()}
    return {
        "machine": machine(),
        "fps": {way: round(fps, 2) for way, fps in medians.items()},
        "cost_percent": {
            way: round(100 * (1 - medians[way] / medians["nobody"]), 2) for way in ("page", "live")
        },
    }


def _read(server: HttpServer | None, way: str, stop: threading.Event) -> None:
    if server is None:
        return
    base = f"http://127.0.0.1:{server.port}"
    if way == "live":
        with urllib.request.urlopen(f"{base}/live/{CAMERA}", timeout=10) as stream:
            while not stop.is_set() and stream.read(4096):
                pass
        return
    while not stop.is_set():
        for path in ("/api/status", "/metrics"):
            with urllib.request.urlopen(base + path, timeout=10) as answer:
                answer.read()
        stop.wait(SCRAPE_S)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(json.dumps(measure(args.model, args.seconds, args.rounds), indent=2))


if __name__ == "__main__":
    main()
