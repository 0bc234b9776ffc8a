"""Sealing and opening of bundles on one core: MB/s, against what the libraries alone need.

    python -m tests.bench.bundles [--mebibytes 128] [--rounds 7] [--out out/bundles.json]

Everything lies in /dev/shm, so no disk is measured; the process is pinned to one core, and speeds
are per second of processor time, because other work may share the core. Kinds take turns within a
round; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from agent.bundle.cipher import KEY_BYTES, Encryptor, room_for
from agent.bundle.content import check_onnx
from agent.bundle.manifest import BLOCK_BYTES
from agent.bundle.open import open_bundle, verify_payload
from agent.bundle.payload import READ_BYTES
from agent.bundle.seal import Source, pack
from agent.versions import versions
from tests.bench.machine import machine
from tests.bench.yolov8n import build
from tests.vectors.bundles import CONVEYOR, facts, read_bundle

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
MB = 1e6
MIB = 2**20
MS = 1e3
US = 1e6
HASHES = 3
"""Passes of SHA-256 over the bytes: each file or block, and the whole payload."""


def quiet(_done: int, _total: int) -> None:
    """Nobody listens."""


def sources(folder: Path, mebibytes: int) -> list[Source]:
    """The demo's model, and pictures up to the size."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = folder / "pictures.bin"
    with pictures.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
    return [
        Source("model.onnx", "model", CONVEYOR),
        Source("pictures.bin", "golden", pictures),
    ]


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of processor and of wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def libraries(total: int) -> None:
    """What cannot be saved: one pass of the cipher, and those of the hash."""
    data = memoryview(bytes(READ_BYTES))
    room = memoryview(bytearray(room_for(READ_BYTES)))
    stream = Encryptor(bytes(KEY_BYTES), b"bench")
    hashes = [hashlib.sha256() for _ in range(HASHES)]
    for _ in range(total // READ_BYTES):
        stream.update_into(data, room)
        for sha in hashes:
            sha.update(data)


def speed(folder: Path, mebibytes: int, rounds: int) -> dict[str, Any]:
    """MB/s of packing, verifying and opening, and of the libraries alone."""
    found = sources(folder, mebibytes)
    total = sum(source.path.stat().st_size for source in found)
    seconds: dict[str, list[dict[str, float]]] = {}

    def measure(name: str, work: Callable[[], object]) -> None:
        seconds.setdefault(name, []).append(timed(work))

    for _ in range(rounds):
        out, plain = folder / "out", folder / "plain"
        plain.mkdir(mode=0o700)
        packed = []
        measure("pack and seal", lambda: packed.append(pack(found, facts(), out, quiet)))  # noqa: B023 - called at once
        bundle = read_bundle(out)
        key = packed[0].data_key
        measure("verify", lambda: verify_payload(bundle.manifest, bundle.index, bundle.payload))  # noqa: B023 - called at once
        measure(
            "verify and decrypt",
            lambda: open_bundle(bundle.manifest, bundle.index, bundle.payload, key, plain, quiet),  # noqa: B023 - called at once
        )
        measure("libraries alone", lambda: libraries(total))
        shutil.rmtree(out)
        shutil.rmtree(plain)
    rates = {
        name: {
            f"mb_per_{kind}_s": [round(total / MB / times[kind], 1) for times in found]
            for kind in ("cpu", "wall")
        }
        for name, found in seconds.items()
    }
    medians = {n: round(statistics.median(r["mb_per_cpu_s"]), 1) for n, r in rates.items()}
    bound = medians["libraries alone"]
    return {
        "bytes": total,
        "rounds": rounds,
        "rates": rates,
        "median_mb_per_cpu_s": medians,
        "ratio_to_libraries": {n: round(m / bound, 3) for n, m in medians.items()},
    }


def blocks(folder: Path) -> dict[str, Any]:
    """What a block costs that arrives: its hash against the index, in microseconds."""
    out = folder / "blocks"
    pack(sources(folder, 0), facts(), out, quiet)
    bundle = read_bundle(out)
    block = bundle.payload.read_bytes()[:BLOCK_BYTES]
    samples = []
    for _ in range(5000):
        begin = time.perf_counter()
        assert bundle.index.fits(0, block)
        samples.append((time.perf_counter() - begin) * US)
    return {f"p{q}_us": round(float(np.percentile(samples, q)), 1) for q in (50, 95, 99)}


def walks(folder: Path) -> dict[str, Any]:
    """How long it takes to look through a model, in milliseconds of processor time."""
    large = folder / "yolov8n.onnx"
    onnx.save(build()[0], str(large))
    found = {}
    for name, path in (("conveyor", CONVEYOR), ("YOLOv8n-sized", large)):
        samples = [timed(lambda: check_onnx(path, {}))["cpu"] for _ in range(20)]  # noqa: B023 - called at once
        found[name] = {
            "bytes": path.stat().st_size,
            "median_ms": round(statistics.median(samples) * MS, 2),
        }
    return found


def peak(folder: Path, mebibytes: int) -> float:
    """MB of memory that a process of its own has at most while it packs and opens a bundle."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(folder, mebibytes, theirs))
    process.start()
    process.join()
    shutil.rmtree(folder)
    return float(ours.recv())


def _peak(folder: Path, mebibytes: int, answer: Any) -> None:
    out, plain = folder / "out", folder / "plain"
    plain.mkdir(mode=0o700, parents=True)
    packed = pack(sources(folder, mebibytes), facts(), out, quiet)
    bundle = read_bundle(out)
    open_bundle(bundle.manifest, bundle.index, bundle.payload, packed.data_key, plain, quiet)
    # Not `ru_maxrss`, which begins with what the parent had.
    status = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    answer.send(int(kilobytes) * 1024 / MB)


def memory(folder: Path, mebibytes: int) -> dict[str, float]:
    """How much more memory a large bundle takes than a small one."""
    small, large = peak(folder / "small", 1), peak(folder / "large", mebibytes)
    return {
        "small_mb": round(small, 1),
        "large_mb": round(large, 1),
        "growth_mb": round(large - small, 1),
    }


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with its figure, and whether it holds."""
    medians = report["speed"]["median_mb_per_cpu_s"]
    rows = (
        ("pack and seal, MB/s on one core", medians["pack and seal"], 200),
        ("verify and decrypt, MB/s on one core", medians["verify and decrypt"], 300),
    )
    return [
        {"what": what, "figure": figure, "target": f">= {limit}", "met": figure >= limit}
        for what, figure, limit in rows
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bundles.json")
    parser.add_argument("--mebibytes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    facts_of_machine = machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": facts_of_machine,
        "versions": {k: v for k, v in versions().items() if v},
    }
    with tempfile.TemporaryDirectory(prefix="vigia-bench-", dir=MEMORY) as name:
        folder = Path(name)
        parts = {
            "walk": lambda: walks(folder),
            "block": lambda: blocks(folder / "blocks"),
            "memory": lambda: memory(folder, args.mebibytes),
            "speed": lambda: speed(folder / "speed", args.mebibytes, args.rounds),
        }
        for part, measure in parts.items():
            print(f"measuring {part} ...", file=sys.stderr, flush=True)
            report[part] = measure()
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
