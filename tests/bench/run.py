"""All benchmarks: prints a table and writes JSON. Run by scripts/bench; needs Mosquitto and ffmpeg.

Things that are compared take turns within one run, because machines drift; figures are medians over
the rounds. Every measurement is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from agent.benchmark import engine_rate, live_ages
from agent.capture.camera import Camera
from agent.config import CameraConfig, ModelConfig, MqttConfig
from agent.models import load_model
from agent.mqtt import MqttClient
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.publish import Publisher
from agent.versions import versions
from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.preprocess import Preprocessor, place
from agent.wire.messages import encode_detections
from agent.wire.topics import Topics
from engines.model import Resize
from tests.bench.lives import memory, start_up
from tests.bench.machine import machine
from tests.bench.naive import Naive
from tests.bench.outage import outages
from tests.bench.yolov8n import build
from tests.integration.mosquitto import Mosquitto

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
SIZE = 640
VIDEO_SECONDS = 8
FPS = 30
ARRANGEMENTS = ("latency", "throughput")


def percentiles(samples_ms: list[float]) -> dict[str, float]:
    """p50, p95, p99 in ms."""
    return {f"p{q}": round(float(np.percentile(samples_ms, q)), 4) for q in (50, 95, 99)}


def timed(action: Any, count: int) -> dict[str, float]:
    """Percentiles of one call in ms, after a warm-up."""
    for _ in range(count // 10 + 3):
        action()
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        action()
        samples.append((time.perf_counter() - began) * 1e3)
    return percentiles(samples)


def make_video(path: Path) -> None:
    """Eight seconds of moving test picture, 1280x720, H.264."""
    source = f"testsrc2=size=1280x720:rate={FPS}:duration={VIDEO_SECONDS}"
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)


class Rig:
    """What the measurements share: model, video, broker, loaded engines."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder = folder
        self.port = broker.port
        self.broker = broker
        self.model = folder / "yolov8n-sized.onnx"
        graph, self.gflop = build(SIZE)
        onnx.save(graph, self.model)
        self.video = folder / "video.mp4"
        make_video(self.video)
        self.loaded = {
            a: load_model(
                "main",
                ModelConfig(path=self.model, arrangement=a),
                live=False,
                cache_dir=folder / "cache",
            )
            for a in ARRANGEMENTS
        }

    def pictures(self) -> list[np.ndarray]:
        """A few frames of the video."""
        capture = cv2.VideoCapture(str(self.video))
        return [capture.read()[1] for _ in range(8)]

    def pipeline_on_file(self, arrangement: str, frames: int) -> float:
        """Frames a second from opening the video to the last acknowledgement, QoS 1."""
        config = MqttConfig(host="127.0.0.1", port=self.port, prefix="bench", detections={"qos": 1})
        client = MqttClient(config, "bench", "bench")
        client.start()
        if not client.wait_connected(10):
            raise SystemExit(f"no connection to the broker: {client.reason}")
        publisher = Publisher(client, Topics("bench", "bench"), config, "bench", "bench")
        publisher.start()
        camera = Camera("file", CameraConfig(source=str(self.video)))
        pipeline = Pipeline(
            cameras={"file": CameraPlan(camera, "main")},
            models={"main": lambda: self.loaded[arrangement]},
            sink=publisher,
            queue_frames=4,
        )
        pipeline.load()
        began = time.perf_counter()
        pipeline.start()
        pipeline.wait()
        publisher.close(10)
        client.flush(10)
        spent = time.perf_counter() - began
        published = publisher.counters()["published"]
        client.close(2)
        if published != frames:
            raise SystemExit(f"{published} of {frames} frames were published")
        return frames / spent


def throughput(rig: Rig, rounds: int) -> dict[str, Any]:
    """Naive loop, pipeline and bare engine, in turn."""
    frames = VIDEO_SECONDS * FPS
    naive = Naive(rig.model, SIZE, rig.port)
    naive.run(rig.video, 20)
    rows: dict[str, list[float]] = {"naive": []}
    times: dict[str, list[float]] = {a: [] for a in ARRANGEMENTS}
    for number in range(rounds):
        print(f"throughput, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        rows["naive"].append(naive.run(rig.video, frames))
        for arrangement in ARRANGEMENTS:
            rate, histogram = engine_rate(rig.loaded[arrangement], VIDEO_SECONDS)
            rows.setdefault(f"engine_{arrangement}", []).append(rate)
            times[arrangement].append(histogram.percentile(0.5))
            rows.setdefault(f"pipeline_{arrangement}", []).append(
                rig.pipeline_on_file(arrangement, frames)
            )
    naive.close()
    ratios = {
        f"{top}/{bottom}": round(
            statistics.median(a / b for a, b in zip(rows[top], rows[bottom], strict=True)), 3
        )
        for top, bottom in (
            ("pipeline_throughput", "naive"),
            ("pipeline_latency", "naive"),
            ("pipeline_throughput", "engine_throughput"),
            ("pipeline_latency", "engine_latency"),
        )
    }
    return {
        "fps": {name: [round(v, 2) for v in values] for name, values in rows.items()},
        "median_fps": {name: round(statistics.median(v), 2) for name, v in rows.items()},
        "ratios": ratios,
        "engine_ms": {a: round(statistics.median(v), 2) for a, v in times.items()},
    }


def live(rig: Rig, seconds: float) -> dict[str, Any]:
    """Age of results at the sink, for one and four cameras of 30 fps."""
    model, pictures = rig.loaded["latency"], rig.pictures()
    result: dict[str, Any] = {}
    for cameras in (1, 4):
        # Before and after: the machine may drift meanwhile.
        _, before = engine_rate(model, 4)
        report = live_ages(model, pictures, cameras=cameras, fps=FPS, seconds=seconds)
        _, after = engine_rate(model, 4)
        rates = list(report.fps.values())
        engine_ms = (before.percentile(0.5) + after.percentile(0.5)) / 2
        result[f"cameras_{cameras}"] = {
            "engine_p50_ms": round(engine_ms, 1),
            "limit_p95_ms": round(2 * engine_ms + 40, 1),
            "age_ms": report.age_ms,
            "halves_p95_ms": report.halves_p95_ms,
            "fps": [round(r, 2) for r in rates],
            "unfairness": round(max(rates) / min(rates) - 1, 3),
        }
    return result


def stages(rig: Rig) -> dict[str, Any]:
    """Letterbox, decoding, encoding, and handing to the broker's client, alone."""
    frame = rig.pictures()[0]
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    preprocessor = Preprocessor(Resize.LETTERBOX, SIZE, SIZE)
    result: dict[str, Any] = {
        "letterbox_1280x720_to_640_ms": timed(lambda: preprocessor.write(frame, out), 500)
    }
    info = rig.loaded["latency"].info
    decoder = Decoder(info, PostprocessSettings())
    placement = place(1280, 720, SIZE, SIZE, Resize.LETTERBOX)
    rng = np.random.default_rng(0)
    for count in (50, 1000):
        tensor = rng.uniform(0, 0.1, (1, 84, 8400)).astype(np.float32)
        tensor[:, :2] = rng.uniform(0, SIZE, (1, 2, 8400))
        tensor[:, 2:4] = rng.uniform(10, 100, (1, 2, 8400))
        chosen = rng.choice(8400, count, replace=False)
        tensor[0, 4 + rng.integers(0, 80, count), chosen] = rng.uniform(0.3, 0.9, count)
        outputs = {"output0": tensor}
        result[f"decode_nms_{count}_candidates_ms"] = timed(
            lambda outputs=outputs: decoder(outputs, 0, placement), 300
        )
    result.update(publishing(rig))
    return result


def publishing(rig: Rig) -> dict[str, Any]:
    """Cost of one message of ten objects: on the pipeline's side, and encoding alone."""
    captured: list[Any] = []

    class Keep:
        def publish(self, result: Any) -> None:
            captured.append(result)

    camera = Camera("file", CameraConfig(source=str(CONVEYOR / "sample.mp4")))
    model = load_model(
        "main", ModelConfig(path=CONVEYOR / "conveyor-n.onnx", confidence=0.02), live=False
    )
    pipeline = Pipeline(
        cameras={"file": CameraPlan(camera, "main")},
        models={"main": lambda: model},
        sink=Keep(),
        queue_frames=4,
    )
    pipeline.load()
    pipeline.start()
    pipeline.wait()
    chosen = min(captured, key=lambda r: abs(len(r.detections) - 10))
    config = MqttConfig(host="127.0.0.1", port=rig.port, prefix="bench", detections={"qos": 1})
    client = MqttClient(config, "bench", "bench")
    client.start()
    client.wait_connected(10)
    publisher = Publisher(client, Topics("bench", "bench"), config, "bench", "bench")
    publisher.start()
    pace = threading.Event()

    def publish() -> float:
        began = time.perf_counter()
        publisher.publish(chosen)
        spent = time.perf_counter() - began
        # At a camera's pace; a burst would measure the drop of the oldest.
        pace.wait(0.003)
        return spent * 1e3

    for _ in range(50):
        publish()
    samples = [publish() for _ in range(1000)]
    publisher.close(5)
    client.close(2)
    return {
        "publish_on_the_pipelines_side_ms": percentiles(samples),
        "encode_10_objects_ms": timed(lambda: encode_detections(chosen, "d", "b", 1, 0), 500),
    }


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with its figure, and whether it holds."""
    rows: list[dict[str, Any]] = []

    def row(what: str, figure: float, limit: float, unit: str, *, at_least: bool = False) -> None:
        met = figure >= limit if at_least else figure <= limit
        sign = ">=" if at_least else "<="
        rows.append(
            {"what": what, "figure": figure, "target": f"{sign} {limit:g} {unit}", "met": met}
        )

    if "throughput" in report:
        ratios = report["throughput"]["ratios"]
        row("file: pipeline (throughput) / naive", ratios["pipeline_throughput/naive"], 1.2, "x",
            at_least=True)  # fmt: skip
        for a in ARRANGEMENTS:
            ratio = ratios[f"pipeline_{a}/engine_{a}"]
            row(f"file: pipeline / bare engine ({a})", ratio, 0.9, "x", at_least=True)
    for name, part in report.get("live", {}).items():
        cameras = name.removeprefix("cameras_")
        row(f"live 30 fps, {cameras} camera(s): p95 age at publish, ms", part["age_ms"]["p95"],
            part["limit_p95_ms"], "ms")  # fmt: skip
        if cameras != "1":
            row(f"{cameras} cameras: unfairness", part["unfairness"], 0.1, "")
    limits = {
        "letterbox_1280x720_to_640_ms": 0.4,
        "decode_nms_50_candidates_ms": 0.5,
        "decode_nms_1000_candidates_ms": 2.5,
        "publish_on_the_pipelines_side_ms": 0.15,
    }
    for name, limit in limits.items():
        if "stages" in report:
            row(f"{name.removesuffix('_ms').replace('_', ' ')}, p50 ms",
                report["stages"][name]["p50"], limit, "ms")  # fmt: skip
    if "start" in report:
        row("start to first detection, demo model, s", statistics.median(report["start"]["warm_s"]),
            2.0, "s")  # fmt: skip
    if "memory" in report:
        row("resident memory, one 720p camera, MB", report["memory"]["max_mb"], 250, "MB")
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--live-seconds", type=float, default=30)
    parser.add_argument("--memory-seconds", type=float, default=60)
    parser.add_argument("--outage-seconds", type=float, default=20)
    parser.add_argument(
        "--only", choices=["throughput", "live", "stages", "start", "memory", "outages"]
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigia-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "xdg")
        with Mosquitto(folder / "mosquitto", {"plain": ("allow_anonymous true",)}) as broker:
            rig = Rig(folder, broker)
            parts = {
                "throughput": lambda: throughput(rig, args.rounds),
                "live": lambda: live(rig, args.live_seconds),
                "stages": lambda: stages(rig),
                "start": lambda: start_up(rig.port, folder, 5),
                "memory": lambda: memory(rig.port, folder, rig.model, args.memory_seconds),
                "outages": lambda: outages(folder, CONVEYOR, args.outage_seconds),
            }
            report: dict[str, Any] = {
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "machine": machine(),
                "versions": {k: v for k, v in versions().items() if v},
                "model": {
                    "name": "YOLOv8n-sized, random weights, 640x640",
                    "gflop": round(rig.gflop, 2),
                    "digest": rig.loaded["latency"].info.digest,
                },
            }
            for part, measure in parts.items():
                if args.only in (None, part):
                    print(f"measuring {part} …", file=sys.stderr, flush=True)
                    report[part] = measure()
                    # After every part, so that one that fails does not cost the others.
                    report["targets"] = targets(report)
                    args.out.parent.mkdir(parents=True, exist_ok=True)
                    args.out.write_text(json.dumps(report, indent=2) + "\n")
    table = Table("what", "figure", "target", "met")
    for row in report["targets"]:
        table.add_row(
            row["what"], f"{row['figure']:g}", row["target"], "yes" if row["met"] else "NO"
        )
    Console().print(table)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
