"""Benchmarks of engines: precisions side by side, what the wrapper costs, accuracy, the swap.

    scripts/bench engines [--out FILE] [--only PART]

Whatever is compared runs in turn, round by round, in one process; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from agent.building import build as build_slot
from agent.calibration import pictures
from agent.config import ModelConfig
from agent.models import load_model, load_plan
from agent.modelsettings import engine_options
from agent.plans import PlanRequest, Plans
from agent.versions import versions
from engines.backend import Recipe
from engines.backends import available
from engines.describe import describe
from engines.errors import EngineError
from engines.onnxfile import read_model
from engines.race import race
from engines.selection import REFERENCE, Policy, built, candidates
from engines.source import Source
from tests.bench.machine import machine
from tests.bench.swap import swap_under_load
from tests.bench.yolov8n import build as build_graph

if TYPE_CHECKING:
    from engines.backend import Backend, Precision
    from engines.base import Engine

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
VIDEO = CONVEYOR / "sample.mp4"
SIZE = 640
THREADS = 2
CALIBRATION_PICTURES = 64
OVERHEAD_ROUNDS = 400
RACES = 3
"""Races of each candidate; the median of their ratios counts."""

EVERYTHING = Policy(("onnxruntime", "openvino", "tensorrt"), ("fp32", "bf16", "fp16", "int8"))


def precisions(folder: Path) -> dict[str, Any]:
    """Every candidate on a graph of YOLOv8n's size against FP32 on ONNX Runtime."""
    path = folder / "yolov8n-sized.onnx"
    graph, gflop = build_graph(SIZE)
    onnx.save(graph, path)
    config = ModelConfig(path=path, threads=THREADS)
    options = engine_options(config, live=True, cache_dir=None)
    info = describe(path)
    calibration, _ = pictures(VIDEO, info, CALIBRATION_PICTURES)
    source = Source(read_model(path).model, info, calibration, threads=THREADS)

    def made(backend: Backend, precision: Precision) -> Engine:
        floats = source.head() if precision == "int8" else frozenset()
        recipe = Recipe(precision, floats)
        product = built(backend, recipe, source, options, lambda progress: None)
        return backend.load(product.blob, info, options)

    backends = available()
    reference = made(backends[0], "fp32")
    rows: dict[str, Any] = {}
    for backend, precision in candidates(backends, EVERYTHING):
        if (backend.name, precision) == REFERENCE:
            continue
        name = f"{backend.name} {precision}"
        print(f"  {name}", file=sys.stderr)
        try:
            engine = made(backend, precision)
        except EngineError as error:
            rows[name] = {"failed": str(error)}
            continue
        results = [race(reference, engine, 1) for _ in range(RACES)]
        engine.close()
        middle = sorted(results, key=lambda r: r.ratio)[RACES // 2]
        rows[name] = {
            "proven": engine.precision,
            "p50_ms": round(middle.second.p50_ms, 2),
            "fp32_p50_ms": round(middle.first.p50_ms, 2),
            "x_fp32": round(middle.ratio, 3),
            "x_fp32_all": [round(r.ratio, 3) for r in results],
        }
    reference.close()
    return {"gflop": round(gflop, 2), "threads": THREADS, "candidates": rows}


def overhead() -> dict[str, float]:
    """What `Context.infer` takes beside `InferenceSession.run` on the demo's model, in turn."""
    config = ModelConfig(path=CONVEYOR / "conveyor-n.onnx", threads=THREADS)
    options = engine_options(config, live=True, cache_dir=None)
    info = describe(config.path)
    (ort, *_) = available()
    source = Source(read_model(config.path).model, info, None)
    blob = ort.build(source, Recipe("fp32"), options, lambda progress: None).blob
    engine = ort.load(blob, info, options)
    context = engine.create_context(1)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(blob, settings, providers=["CPUExecutionProvider"])
    ((name, array),) = context.inputs.items()
    array[...] = np.random.default_rng(0).integers(0, 255, array.shape, np.uint8)
    feed = {name: array.copy()}
    samples: dict[str, list[float]] = {"wrapper": [], "session": []}
    calls = {"wrapper": context.infer, "session": lambda: session.run(None, feed)}
    for number in range(OVERHEAD_ROUNDS):
        for what in sorted(calls, reverse=bool(number % 2)):
            began = time.perf_counter()
            calls[what]()
            samples[what].append((time.perf_counter() - began) * 1e3)
    context.close()
    engine.close()
    medians = {what: float(np.median(times[20:])) for what, times in samples.items()}
    return {
        "wrapper_p50_ms": round(medians["wrapper"], 4),
        "session_p50_ms": round(medians["session"], 4),
        "ratio": round(medians["wrapper"] / medians["session"], 4),
    }


def conveyor(folder: Path, keep_float: str, backend: str, precision: str) -> dict[str, Any]:
    """The whole selection on the demo's model, with its ground truth."""
    config = ModelConfig(
        path=CONVEYOR / "conveyor-n.onnx",
        threads=THREADS,
        backend=backend,
        precision=precision,
        quantize={
            "calibration": VIDEO,
            "truth": CONVEYOR / "sample.json",
            "keep_float": keep_float,
        },
    )
    report = build_slot(Plans(PlanRequest("main", config, True, folder)), lambda progress: None)
    return {
        "chosen": report.value["chosen"],
        "spent_s": report.value["spent_s"],
        "rows": [
            {
                key: row[key]
                for key in ("backend", "precision", "taken", "reason", "ms", "speedup", "repairs")
            }
            | {
                key: row["figures"].get(key)
                for key in ("matched", "score_drift", "cosine", "map50_95", "map_loss")
            }
            for row in report.value["rows"]
        ],
    }


def swaps(folder: Path) -> dict[str, Any]:
    """FP32 and int8 of the demo's model in turn, under a live source of 30 frames a second."""
    config = ModelConfig(
        path=CONVEYOR / "conveyor-n.onnx",
        threads=1,
        backend="onnxruntime",
        precision="int8",
        quantize={"calibration": VIDEO},
    )
    plans = Plans(PlanRequest("main", config, True, folder))
    build_slot(plans, lambda progress: None)
    plan = plans.find()
    assert plan is not None
    floating = config.model_copy(update={"precision": "fp32"})
    capture = cv2.VideoCapture(str(VIDEO))
    frames = [capture.read()[1] for _ in range(8)]
    capture.release()
    return swap_under_load(
        [
            lambda: load_model("main", floating, live=True, cache_dir=folder),
            lambda: load_plan(plans, plan),
        ],
        frames,
    )


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with its figure, and whether it holds."""
    rows = []

    def row(what: str, figure: float | None, limit: float, sign: str) -> None:
        met = figure is not None and (figure >= limit if sign == ">=" else figure <= limit)
        rows.append({"what": what, "figure": figure, "target": f"{sign} {limit:g}", "met": met})

    found = report.get("precisions", {}).get("candidates", {})
    if found:
        row("YOLOv8n-sized: int8 / FP32, ONNX Runtime",
            found["onnxruntime int8"].get("x_fp32"), 1.9, ">=")  # fmt: skip
        openvino = [v["x_fp32"] for k, v in found.items() if "openvino" in k and "x_fp32" in v]
        if openvino:
            row("YOLOv8n-sized: best of OpenVINO / FP32 on ONNX Runtime (target: with AMX)",
                max(openvino), 3.0, ">=")  # fmt: skip
    if "overhead" in report:
        row("engine wrapper / session.run", report["overhead"]["ratio"], 1.02, "<=")
    if "conveyor" in report:
        losses = [
            r["map_loss"] for r in report["conveyor"]["head"]["rows"] if r["precision"] == "int8"
        ]
        row("demo model: mAP50-95 lost by int8", max(losses), 0.01, "<=")
    if "swap" in report:
        row("swap at 30 fps: frames lost", report["swap"]["swap"]["lost"], 0, "<=")
        row("swap at 30 fps: latest frame late by, ms",
            report["swap"]["swap"]["latest_ms"], 33.3, "<=")  # fmt: skip
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "engines.json")
    parser.add_argument("--only", choices=["precisions", "overhead", "conveyor", "swap"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigia-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "xdg")
        parts = {
            "precisions": lambda: precisions(folder),
            "overhead": overhead,
            "conveyor": lambda: {
                "auto": conveyor(folder, "head", "auto", "auto"),
                "head": conveyor(folder, "head", "onnxruntime", "int8"),
                "none": conveyor(folder, "none", "onnxruntime", "int8"),
            },
            "swap": lambda: swaps(folder),
        }
        report: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine(),
            "versions": {k: v for k, v in versions().items() if v},
        }
        for part, measure in parts.items():
            if args.only in (None, part):
                print(f"measuring {part} …", file=sys.stderr, flush=True)
                report[part] = measure()
                report["targets"] = targets(report)
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(report, indent=2) + "\n")
    table = Table("what", "figure", "target", "met")
    for row in report["targets"]:
        table.add_row(row["what"], f"{row['figure']}", row["target"], "yes" if row["met"] else "NO")
    Console().print(table)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
