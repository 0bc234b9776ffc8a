"""Measures a model on this machine: the bare engine, the whole pipeline, the age of live results.

Everything is measured warm. Rates are medians over rounds in which the things compared take turns,
so that a machine whose speed drifts does not favour one of them.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agent.config import ModelConfig
from agent.frame import Frame
from agent.models import load_model
from agent.pipeline.pipeline import CameraPlan, Feed, Pipeline
from agent.pipeline.stats import Histogram
from engines.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.detection import Result
    from agent.pipeline.worker import LoadedModel

WARM_UP_SHARE = 0.2
"""Part of a live measurement that is left out at its start."""

ARRANGEMENTS: tuple[Literal["latency", "throughput"], ...] = ("latency", "throughput")

PICTURES = 8
"""Distinct pictures that a replayed source cycles through."""


class CountingSink:
    """Counts results and keeps what the comparison needs of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first_s = self.last_s = 0.0

    def publish(self, _result: Result) -> None:
        """Count one."""
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        self.count += 1


@dataclass(slots=True)
class AgeSink:
    """Keeps when each result came and how old its frame was.

    Attributes:
        samples: (camera, seconds since start, age in ms).
    """

    started_s: float
    samples: list[tuple[str, float, float]]

    def publish(self, result: Result) -> None:
        """Note one."""
        age_ms = (time.monotonic_ns() - result.monotonic_ns) / 1e6
        self.samples.append((result.camera, time.perf_counter() - self.started_s, age_ms))


class ReplayFeed:
    """Pictures from memory: as fast as they are taken, or live at `fps`.

    Args:
        camera: name for the frames.
        pictures: BGR pictures, used in turn.
        count: frames to deliver.
        fps: None for lossless and unpaced, else frames a second of a live camera.
    """

    def __init__(
        self,
        camera: str,
        pictures: list[NDArray[np.uint8]],
        count: int,
        fps: float | None = None,
    ) -> None:
        self.live = fps is not None
        self._camera = camera
        self._pictures = pictures
        self._count = count
        self._period_s = 0.0 if fps is None else 1.0 / fps

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        """See `agent.pipeline.pipeline.Feed`."""
        began = time.monotonic()
        for index in range(self._count):
            wait_s = began + index * self._period_s - time.monotonic()
            if (wait_s > 0 and stop.wait(wait_s)) or stop.is_set():
                return
            pixels = self._pictures[index % len(self._pictures)]
            if not deliver(Frame(pixels, self._camera, index, time.monotonic_ns(), time.time())):
                return


def noise_pictures(width: int, height: int) -> list[NDArray[np.uint8]]:
    """Pictures of random pixels, for models without a picture of their own."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(PICTURES)]


def engine_rate(model: LoadedModel, seconds: float) -> tuple[float, Histogram]:
    """Run the bare engine with every lane busy.

    Returns:
        Images a second, and how long one inference took in ms.

    Raises:
        InferenceError: the engine failed.
    """
    batch = model.info.max_batch or model.batch
    histogram = Histogram()
    counts: list[int] = []
    failures: list[InferenceError] = []
    began = time.perf_counter()

    def lane() -> None:
        context = model.engine.create_context(batch)
        count = 0
        try:
            # At least once, however busy the machine is.
            while not count or time.perf_counter() - began < seconds:
                start = time.perf_counter()
                context.infer()
                histogram.add((time.perf_counter() - start) * 1e3)
                count += batch
        except InferenceError as error:
            failures.append(error)
        finally:
            context.close()
            counts.append(count)

    threads = [threading.Thread(target=lane, daemon=True) for _ in range(model.engine.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - began), histogram


def pipeline_rate(
    model: LoadedModel, feed: Feed, queue_frames: int = 4
) -> tuple[float, Mapping[str, object]]:
    """Run a lossless source through the whole pipeline with a loaded model.

    Returns:
        Results a second between the first and the last, and the camera's statistics.
    """
    sink = CountingSink()
    pipeline = Pipeline(
        cameras={"bench": CameraPlan(feed, "bench")},
        models={"bench": lambda: model},
        sink=sink,
        queue_frames=queue_frames,
    )
    pipeline.load()
    pipeline.start()
    pipeline.wait()
    rate = (sink.count - 1) / max(1e-9, sink.last_s - sink.first_s)
    return rate, pipeline.stats.total()["bench"]


@dataclass(frozen=True, slots=True)
class LiveReport:
    """Live cameras against an engine.

    Attributes:
        fps: results a second, by camera.
        age_ms: p50, p95, p99 of capture-to-publish over all cameras.
        halves_p95_ms: p95 in the first and in the second half, to see whether it grows.
        drops: frames not analysed by cause, by camera.
    """

    fps: dict[str, float]
    age_ms: dict[str, float]
    halves_p95_ms: tuple[float, float]
    drops: dict[str, object]


def live_ages(
    model: LoadedModel,
    pictures: list[NDArray[np.uint8]],
    *,
    cameras: int,
    fps: float,
    seconds: float,
) -> LiveReport:
    """Run `cameras` live sources of `fps` each for `seconds`."""
    names = [f"camera{number}" for number in range(cameras)]
    sink = AgeSink(time.perf_counter(), [])
    pipeline = Pipeline(
        cameras={
            name: CameraPlan(ReplayFeed(name, pictures, int(seconds * fps), fps), "bench")
            for name in names
        },
        models={"bench": lambda: model},
        sink=sink,
        queue_frames=1,
    )
    pipeline.load()
    pipeline.start()
    pipeline.wait()
    warm_s = seconds * WARM_UP_SHARE
    samples = [s for s in sink.samples if s[1] >= warm_s]
    middle_s = warm_s + (seconds - warm_s) / 2
    ages = [age for _, _, age in samples]
    totals = pipeline.stats.total()
    return LiveReport(
        fps={n: sum(s[0] == n for s in samples) / (seconds - warm_s) for n in names},
        age_ms={f"p{q}": round(float(np.percentile(ages, q)), 1) for q in (50, 95, 99)},
        halves_p95_ms=(
            round(float(np.percentile([s[2] for s in samples if s[1] < middle_s], 95)), 1),
            round(float(np.percentile([s[2] for s in samples if s[1] >= middle_s], 95)), 1),
        ),
        drops={name: totals[name]["drops"] for name in names},
    )


def median(values: list[float]) -> float:
    """Median, rounded for people."""
    return round(statistics.median(values), 3)


def bench_model(
    path: Path,
    *,
    seconds: float,
    size: tuple[int, int],
    fps: float,
    threads: int | None,
    tell: Callable[[str], None],
) -> list[dict[str, object]]:
    """Measure a model file in both arrangements.

    Returns:
        Rows with `arrangement`, `what` ("engine", "pipeline", "live"), `per_s` (images or results a
        second) and `p50`, `p95`, `p99` in ms: of one inference, of capture to result.

    Raises:
        EngineError: the model cannot be loaded or run.
    """
    pictures = noise_pictures(*size)
    rows: list[dict[str, object]] = []
    for arrangement in ARRANGEMENTS:
        config = ModelConfig(path=path, arrangement=arrangement, threads=threads)
        model = load_model("bench", config, live=False)
        tell(f"{arrangement}, engine")
        rate, times = engine_rate(model, seconds)
        rows.append(
            {"arrangement": arrangement, "what": "engine", "per_s": rate, **times.summary()}
        )
        tell(f"{arrangement}, pipeline")
        feed = ReplayFeed("bench", pictures, max(10, int(rate * seconds)))
        per_s, stats = pipeline_rate(model, feed)
        rows.append(
            {"arrangement": arrangement, "what": "pipeline", "per_s": per_s, **_total(stats)}
        )
        tell(f"{arrangement}, live at {fps:g} fps")
        live = live_ages(model, pictures, cameras=1, fps=fps, seconds=seconds)
        rows.append(
            {
                "arrangement": arrangement,
                "what": "live",
                "per_s": sum(live.fps.values()),
                **live.age_ms,
            }
        )
        model.engine.close()
    return rows


def _total(stats: Mapping[str, Any]) -> dict[str, float]:
    return dict(stats["lat_ms"]["total"])
