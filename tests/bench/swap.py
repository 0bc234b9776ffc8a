"""What a live camera notices of engines that take over from each other.

    python -m tests.bench.swap MODEL CALIBRATION [--fps 30] [--swaps 20]

Engines are loaded and swapped in while a source of a steady rate is analysed. A frame is late by
what its result is older than the median result of quiet times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.benchmark import ReplayFeed, noise_pictures
from agent.building import build
from agent.config import ModelConfig
from agent.detection import Result
from agent.models import load_plan, load_reference
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.pipeline.worker import LoadedModel
from agent.plans import PlanRequest, Plans, default_cache_dir

CAMERA = "camera"
SLOT = "bench"
NS = 1e9
MS = 1e3

QUIET_S = 0.6
"""Time between two swaps, from which the usual age of a result is taken."""

SETTLE_S = 0.1
"""Part of it, at its beginning, that still counts as the swap."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One result: capture time and age in seconds."""

    index: int
    captured_s: float
    age_s: float
    dropped: int


class Ages:
    """A sink that keeps how old each result was."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def publish(self, result: Result) -> None:
        now_s = time.monotonic()
        captured_s = result.monotonic_ns / NS
        self.seen.append(Seen(result.frame_index, captured_s, now_s - captured_s, result.dropped))


def swap_under_load(
    loads: Sequence[Callable[[], LoadedModel]],
    pictures: list[NDArray[np.uint8]],
    *,
    fps: float = 30.0,
    swaps: int = 20,
) -> dict[str, Any]:
    """Swap engines in turn under a live source.

    Args:
        loads: load the engines, warm; the first serves first.
        pictures: BGR pictures, used in turn.
        fps: of the source.
        swaps: how many.

    Returns:
        `frames` and, of each phase ("quiet", "load": while an engine is loaded beside the one that
        serves, "swap": from the hand-over until the old engine is closed and a little longer),
        `lost` frames, `late` frames (by more than a frame interval), `latest_ms` (how late the
        latest was) and, but for "quiet", `took_ms` (median). `usual_ms` is the median age of a
        result in quiet times.
    """
    sink = Ages()
    feed = ReplayFeed(CAMERA, pictures, 10**9, fps)
    pipeline = Pipeline(
        cameras={CAMERA: CameraPlan(feed, SLOT)},
        models={SLOT: loads[0]},
        sink=sink,
        queue_frames=1,
    )
    quiet = threading.Event()
    pipeline.load()
    pipeline.start()
    quiet.wait(QUIET_S)
    loading: list[tuple[float, float]] = []
    swapping: list[tuple[float, float]] = []
    for load in itertools.islice(itertools.cycle([*loads[1:], loads[0]]), swaps):
        quiet.wait(QUIET_S)
        began = time.monotonic()
        model = load()
        loaded = time.monotonic()
        pipeline.swap(SLOT, model).result()
        loading.append((began, loaded))
        swapping.append((loaded, time.monotonic()))
    quiet.wait(QUIET_S)
    pipeline.stop()
    pipeline.wait()
    pipeline.close()
    return _figures(sink.seen, loading, swapping, fps)


def _figures(
    seen: list[Seen],
    loading: list[tuple[float, float]],
    swapping: list[tuple[float, float]],
    fps: float,
) -> dict[str, Any]:
    interval_s = 1 / fps
    # A frame that was captured just before may be the one that has to wait.
    swaps = [(a - interval_s, b + SETTLE_S) for a, b in swapping]
    loads = [(a - interval_s, b - interval_s) for a, b in loading]
    warm = [s for s in seen if s.captured_s > seen[0].captured_s + QUIET_S / 2]
    phases = {
        "quiet": [s for s in warm if not _within(s, loads) and not _within(s, swaps)],
        "load": [s for s in warm if _within(s, loads)],
        "swap": [s for s in warm if _within(s, swaps)],
    }
    usual_s = statistics.median(s.age_s for s in phases["quiet"])
    report: dict[str, Any] = {
        "swaps": len(swapping),
        "frames": seen[-1].index + 1,
        "usual_ms": round(usual_s * MS, 2),
    }
    for name, frames in phases.items():
        late_s = [s.age_s - usual_s for s in frames]
        report[name] = {
            "frames": len(frames),
            "lost": sum(s.dropped for s in frames),
            "late": sum(late > interval_s for late in late_s),
            "latest_ms": round(max(late_s, default=0) * MS, 2),
        }
    for name, times in (("load", loading), ("swap", swapping)):
        report[name]["took_ms"] = round(statistics.median(b - a for a, b in times) * MS, 2)
    return report


def _within(frame: Seen, times: list[tuple[float, float]]) -> bool:
    return any(a <= frame.captured_s <= b for a, b in times)


def main() -> None:
    """Swap between a model's FP32 engine and an int8 one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path, help="folder of pictures, or a video")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--swaps", type=int, default=20)
    args = parser.parse_args()
    config = ModelConfig.model_validate(
        {
            "path": args.model,
            "backend": args.backend,
            "precision": "int8",
            "quantize": {"calibration": args.calibration, "images": 32},
        }
    )
    plans = Plans(PlanRequest(SLOT, config, True, default_cache_dir()))
    build(plans, lambda _: None)
    plan = plans.find()
    if plan is None:
        raise SystemExit("the plan cache keeps nothing; see the warnings above")
    figures = swap_under_load(
        [lambda: load_reference(plans), lambda: load_plan(plans, plan)],
        noise_pictures(1280, 720),
        fps=args.fps,
        swaps=args.swaps,
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
