"""Runs on a machine with an NVIDIA GPU what the tests can only do on stand-ins.

    scripts/device-check [--out FILE]

Prints rows for docs/hardware.md and writes all figures as JSON. Exit code 0 if everything passed, 1
if something failed, 2 if there is no GPU to run on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from agent.building import build
from agent.config import ModelConfig
from agent.device import hardware
from agent.plans import PlanRequest, Plans
from agent.versions import versions
from agent.vision.preprocess import Preprocessor
from engines.describe import describe
from engines.errors import EngineError
from engines.model import Resize
from engines.trt.board import L4T_RELEASE, first_line

ROOT = Path(__file__).parents[2]
CONVEYOR = ROOT / "examples" / "conveyor"
MODEL = CONVEYOR / "conveyor-n.onnx"
PRECISIONS = ("fp32", "fp16", "int8")
FRAME_WIDTH, FRAME_HEIGHT = 1280, 720
RUNS = 200
PORT_TARGET_US = 50.0
KERNEL_TARGET = 5.0


def libraries() -> dict[str, Any]:
    """What of CUDA and TensorRT the system has."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    names = ("libnvinfer.so", "libcuda.so", "libcudart.so", "libnvrtc.so", "libnvdla_compiler.so")
    found = {name: name in known for name in names}
    if not found["libnvinfer.so"]:
        places = [Path("/usr/lib"), Path("/usr/local"), Path("/opt")]
        found["libnvinfer.so"] = any(
            next(place.rglob("libnvinfer.so*"), None) for place in places if place.is_dir()
        )
    return {"l4t": first_line(L4T_RELEASE), **found}


def median_us(action: Callable[[], object]) -> float:
    """Median time of a call, microseconds, warm."""
    samples = []
    for number in range(RUNS):
        began = time.perf_counter()
        action()
        if number >= RUNS // 10:
            samples.append((time.perf_counter() - began) * 1e6)
    return round(float(np.median(samples)), 1)


def port(cuda: Any) -> dict[str, Any]:
    """Buffers, copies, events and a graph on the real driver; what an inference costs around it."""
    content = np.random.default_rng(0).integers(0, 255, 1 << 20, np.uint8)
    with cuda.pushed():
        stream, first, second = cuda.stream(), cuda.event(), cuda.event()
        source, target = cuda.pinned(content.nbytes), cuda.pinned(content.nbytes)
        memory = cuda.alloc(content.nbytes)
        source.array[:] = content

        def work() -> None:
            cuda.copy_in(memory, source, content.nbytes, stream)
            cuda.copy_out(target, memory, content.nbytes, stream)

        first.record(stream)
        work()
        second.record(stream)
        stream.synchronize()
        copied = bool((target.array == content).all())
        copy_ms = second.elapsed_ms(first)
        graph = cuda.capture(stream, work)
        target.array[:] = 0
        graph.launch(stream)
        stream.synchronize()
        replayed = bool((target.array == content).all())
        for thing in (graph, memory, target, source, second, first, stream):
            thing.close()

    def idle() -> None:
        with cuda.pushed():
            waiting.synchronize()

    with cuda.pushed():
        waiting = cuda.stream()
    overhead = median_us(idle)
    with cuda.pushed():
        waiting.close()
    return {
        "passed": copied and replayed and overhead <= PORT_TARGET_US,
        "copied": copied,
        "graph_replayed": replayed,
        "copy_2_mib_ms": round(copy_ms, 3),
        "overhead_us": overhead,
        "target_us": PORT_TARGET_US,
    }


def kernel(cuda: Any) -> dict[str, Any]:
    """The preprocessing kernel beside the processor's path: equality, and time with the copy."""
    from engines.trt.kernel import FrameKernel  # noqa: PLC0415 - needs a GPU

    info = describe(MODEL)
    frame = np.random.default_rng(0).integers(0, 255, (FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    host = np.zeros((info.height, info.width, 3), np.uint8)
    preprocessor = Preprocessor(Resize.LETTERBOX, info.width, info.height)
    window, _ = preprocessor.fit(FRAME_WIDTH, FRAME_HEIGHT)
    tensor = np.empty((3, info.height, info.width), np.float32)

    def on_host() -> None:
        preprocessor.write(frame, host)
        np.multiply(host[..., ::-1].transpose(2, 0, 1), np.float32(1 / 255), out=tensor)

    with cuda.pushed():
        prepared = FrameKernel(cuda, info, np.dtype(np.float32))
        memory, back, stream = cuda.alloc(tensor.nbytes), cuda.pinned(tensor.nbytes), cuda.stream()
        writer = prepared.writer(memory)

        def on_gpu() -> None:
            writer.write(stream, 0, frame, window.source, window.target)
            stream.synchronize()

        on_host()
        on_gpu()
        cuda.copy_out(back, memory, tensor.nbytes, stream)
        stream.synchronize()
        found = back.array[: tensor.nbytes].view(np.float32).reshape(tensor.shape)
        difference = float(np.abs(found - tensor).max()) * 255
        gpu_us, host_us = median_us(on_gpu), median_us(on_host)
        for thing in (writer, memory, back, stream):
            thing.close()
    ratio = host_us / gpu_us
    return {
        "passed": difference <= 1.001 and ratio >= KERNEL_TARGET,
        "difference_255": round(difference, 3),
        "gpu_us": gpu_us,
        "processor_us": host_us,
        "ratio": round(ratio, 2),
        "target": KERNEL_TARGET,
    }


def route(precision: str, preprocess: str) -> dict[str, Any]:
    """Build, judge with ground truth, race."""
    with tempfile.TemporaryDirectory(prefix="vigia-check-") as folder:
        config = ModelConfig(
            path=MODEL,
            backend="tensorrt",
            precision=precision,
            tensorrt={"preprocess": preprocess},
            quantize={"calibration": CONVEYOR / "sample.mp4", "truth": CONVEYOR / "sample.json"},
        )
        plans = Plans(PlanRequest("main", config, True, Path(folder)))
        report = build(plans, lambda told: print(f"  {told.step}", file=sys.stderr))
        return {"passed": True, **report.value}


def attempt(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one part; an error of ours is a figure, too."""
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        return measure()
    except EngineError as error:
        return {"passed": False, "error": str(error)}


def main() -> int:
    """Look, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "device-check.json")
    args = parser.parse_args()
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": hardware(),
        "versions": {k: v for k, v in versions().items() if v},
        "libraries": libraries(),
        "parts": {},
    }
    parts = report["parts"]
    cuda = None
    try:
        from engines.trt.cudapycuda import open_port  # noqa: PLC0415 - may be missing

        cuda = open_port()
    except (ImportError, OSError, EngineError) as error:
        report["no_gpu"] = f"{error}"
    if cuda is not None:
        report["gpu"] = cuda.board.to_json()
        parts["port"] = attempt("port", lambda: port(cuda))
        parts["kernel"] = attempt("kernel", lambda: kernel(cuda))
        for precision in PRECISIONS:
            for preprocess in ("cpu", "cuda"):
                name = f"{precision}, frames prepared by {preprocess}"
                parts[name] = attempt(name, lambda p=precision, q=preprocess: route(p, q))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"| part | passed on {report.get('gpu', {}).get('name', 'no GPU')} | {report['date']} |")
    print("|---|---|---|")
    for name, figures in parts.items():
        print(f"| {name} | {'yes' if figures['passed'] else 'NO'} | {_short(figures)} |")
    print(f"written to {args.out}")
    if cuda is None:
        print(f"no NVIDIA GPU can be used: {report['no_gpu']}", file=sys.stderr)
        return 2
    return 0 if all(figures["passed"] for figures in parts.values()) else 1


def _short(figures: dict[str, Any]) -> str:
    if "error" in figures:
        return str(figures["error"])
    if "rows" in figures:
        row = next(r for r in figures["rows"] if r["taken"])
        return f"{row['route']}, p50 {row['ms']['p50']} ms, mAP loss {row['figures']['map_loss']}"
    return ", ".join(f"{key} {value}" for key, value in figures.items() if key != "passed")


if __name__ == "__main__":
    sys.exit(main())
