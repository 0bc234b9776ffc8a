"""What is measured of whole lives of `vigia run`: how soon it detects, how much memory it takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.integration.subscriber import Subscriber

CONVEYOR = Path(__file__).parents[2] / "examples" / "conveyor"


def start_up(port: int, folder: Path, runs: int) -> dict[str, Any]:
    """From starting `vigia run` with the demo model to its first detection at a subscriber."""
    samples = []
    for number in range(runs + 1):
        prefix = f"start/{number}"
        config = {
            "device": {"id": "bench"},
            "mqtt": {"host": "127.0.0.1", "port": port, "prefix": prefix},
            "cameras": {"belt": {"source": str(CONVEYOR / "sample.mp4"), "realtime": True}},
            "models": {"main": {"path": str(CONVEYOR / "conveyor-n.onnx")}},
            "pipeline": {"cache_dir": str(folder / "start-cache")},
        }
        path = folder / "start.yaml"
        path.write_text(yaml.safe_dump(config))
        with Subscriber(port, f"{prefix}/bench/cam/belt/detections") as reader:
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "-c", str(path)], stderr=subprocess.DEVNULL
            )
            reader.wait_count(1, 30)
            samples.append(time.perf_counter() - began)
            process.terminate()
            process.wait(10)
    return {"first_s": round(samples[0], 2), "warm_s": [round(s, 2) for s in samples[1:]]}


def memory(port: int, folder: Path, model: Path, seconds: float) -> dict[str, Any]:
    """Resident memory of `vigia run`: YOLOv8n-sized model, one live 1280x720 camera."""
    config = {
        "device": {"id": "bench"},
        "mqtt": {"host": "127.0.0.1", "port": port, "prefix": "memory"},
        "cameras": {"clip": {"source": "synthetic://1280x720@30"}},
        "models": {"main": {"path": str(model)}},
    }
    path = folder / "memory.yaml"
    path.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "-c", str(path)], stderr=subprocess.DEVNULL
    )
    handle = psutil.Process(process.pid)
    tick = threading.Event()
    samples = []
    tick.wait(5)
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        samples.append(handle.memory_info().rss / 1e6)
        tick.wait(1)
    process.terminate()
    process.wait(10)
    third = max(1, len(samples) // 3)
    return {
        "seconds": round(seconds),
        "max_mb": round(max(samples), 1),
        "first_third_mb": round(statistics.median(samples[:third]), 1),
        "last_third_mb": round(statistics.median(samples[-third:]), 1),
    }
