"""A bundle over MQTT, beside what the MQTT library does with the same blocks.

    python -m tests.bench.transfer [--mebibytes 100] [--rounds 9] [--out out/transfer.json]

Raw: one paho client publishes the blocks with QoS 1, another receives them and does nothing with
them. Ours: a process of its own pulls the retained blocks by a window, checks and stores each; what
it stored is removed before the next round, whose disk it would load. Then one is killed half-way
and resumed; and a real agent analyses a video while it pulls bundles that it
refuses once they are there, so that nothing but the transfer is beside its frames.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from agent.bundle.index import BlockIndex
from agent.bundle.manifest import BLOCK_BYTES
from agent.config import MqttConfig
from agent.configupdates import UpdatesConfig
from agent.update.fetch import Fetcher
from agent.update.staging import Staging
from agent.wire.topics import FleetTopics
from tests.bench.machine import machine
from tests.fakes.blocks import Blocks, make_blocks
from tests.integration.agents import Agents
from tests.integration.mosquitto import Mosquitto
from tests.integration.pieces import BUNDLE, Pieces
from tests.integration.subscriber import Subscriber
from tests.integration.updates import VIDEO, Fleet
from tests.vectors import conveyors

MIB = 2**20
MB = 1e6
PREFIX = "bench/v1"
DIGEST = "a" * 64
WINDOW = UpdatesConfig().window_blocks
STALL_S = 10.0
LONG_S = 120.0
FPS = 15.0
TRANSFERS = 10


def raw(port: int, source: Blocks) -> float:
    """Bytes a second from one paho client to another."""
    count, got, done = len(source.blocks), 0, threading.Event()
    ready = threading.Event()

    def heard(_client: Any, _data: Any, _message: Any) -> None:
        nonlocal got
        got += 1
        if got == count:
            done.set()

    reader = paho.Client(CallbackAPIVersion.VERSION2)
    reader.on_message = heard
    reader.on_subscribe = lambda *_: ready.set()
    reader.on_connect = lambda client, *_: client.subscribe("raw/+", 1)
    reader.connect("127.0.0.1", port)
    reader.loop_start()
    assert ready.wait(LONG_S)
    writer = paho.Client(CallbackAPIVersion.VERSION2)
    writer.max_inflight_messages_set(WINDOW)
    writer.connect("127.0.0.1", port)
    writer.loop_start()
    began = time.perf_counter()
    for number, block in enumerate(source.blocks):
        writer.publish(f"raw/{number}", block, 1)
    assert done.wait(LONG_S)
    seconds = time.perf_counter() - began
    for client in (reader, writer):
        client.disconnect()
        client.loop_stop()
    return source.index.ciphertext_length / seconds


def pull(port: int, folder: Path, index_file: Path) -> None:
    """In a process of its own: fetch, and tell how it went."""
    facts = json.loads(index_file.read_text())
    index = BlockIndex(BLOCK_BYTES, facts["length"], bytes.fromhex(facts["hashes"]))
    config = MqttConfig.model_validate({"host": "127.0.0.1", "port": port, "prefix": PREFIX})
    fetcher = Fetcher(config, "d1", FleetTopics(PREFIX), lambda _request: None)
    staging = Staging(folder, DIGEST)
    staging.allocate(index.ciphertext_length)
    process = psutil.Process()
    before = process.memory_info().rss
    peak = before
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()

    counts = fetcher.blocks(
        BUNDLE, index, staging, WINDOW, STALL_S, lambda *_: None, threading.Event()
    )
    seconds = time.perf_counter() - began
    stop.set()
    watcher.join()
    found = {
        "rate": counts.bytes / seconds,
        "growth_mb": (peak - before) / MB,
        "blocks": counts.blocks,
        "duplicates": counts.duplicates,
    }
    sys.stdout.write(json.dumps(found))


def pulled(
    port: int, folder: Path, index_file: Path, kill_at: int | None = None
) -> dict[str, Any] | None:
    """What `pull` tells, or None if it was killed when it had written so many blocks."""
    words = [sys.executable, "-m", "tests.bench.transfer", "--pull",
             json.dumps([port, str(folder), str(index_file)])]  # fmt: skip
    point = {} if kill_at is None else {"VIGIA_FAILPOINT": f"C1.block:{kill_at}"}
    done = subprocess.run(words, stdout=subprocess.PIPE, env={**os.environ, **point}, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0
    return dict(json.loads(done.stdout))


def transfers(folder: Path, mebibytes: int, rounds: int) -> dict[str, Any]:
    """Rates side by side, memory, and a resumed transfer."""
    source = make_blocks(mebibytes * MIB // BLOCK_BYTES, BLOCK_BYTES)
    index_file = folder / "index.json"
    facts = {"length": source.index.ciphertext_length, "hashes": source.index.hashes.hex()}
    index_file.write_text(json.dumps(facts))
    general = ("max_queued_messages 10000", "max_inflight_messages 256", "set_tcp_nodelay true")
    with Mosquitto(folder / "b", {"plain": ("allow_anonymous true",)}, general) as broker:
        with Pieces(broker.port, FleetTopics(PREFIX)) as pieces:
            pieces.blocks(source)
        raws, ours = [], []
        for number in range(rounds):
            raws.append(raw(broker.port, source))
            place = folder / f"pull{number}"
            found = pulled(broker.port, place, index_file)
            assert found is not None
            ours.append(found)
            shutil.rmtree(place)
        killed = folder / "killed"
        assert pulled(broker.port, killed, index_file, len(source.blocks) // 2) is None
        there = len(Staging(killed, DIGEST).blocks(source.index).present)
        resumed = pulled(broker.port, killed, index_file)
        assert resumed is not None
    total = len(source.blocks)
    rate = statistics.median(o["rate"] for o in ours)
    base = statistics.median(raws)
    return {
        "bytes": source.index.ciphertext_length,
        "window": WINDOW,
        "raw_mb_s": [round(r / MB, 1) for r in raws],
        "ours_mb_s": [round(o["rate"] / MB, 1) for o in ours],
        "ratio": round(rate / base, 3),
        "growth_mb": [round(o["growth_mb"], 1) for o in ours],
        "killed_at_blocks": there,
        "resumed_blocks": resumed["blocks"],
        # What the killed one had and the resumed one pulled again, and repetitions within it.
        "pulled_twice": there + resumed["blocks"] + resumed["duplicates"] - total,
    }


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of all lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def latency(folder: Path, mebibytes: int) -> dict[str, Any]:
    """Age of a real agent's results with and without a transfer beside them."""
    with (
        Mosquitto(folder / "b", {"plain": ("allow_anonymous true",)}) as broker,
        Subscriber(broker.port, f"{PREFIX}/d1/#") as reader,
    ):
        fleet = Fleet(folder, broker.port, PREFIX)
        agents = Agents(folder)
        camera = {"source": str(VIDEO), "loop": True, "realtime": True, "fps": FPS}
        model = conveyors.write(folder, "configured.onnx", conveyors.original())
        agents.start(fleet.config(model, {"belt": camera}))

        def frames() -> list[dict[str, Any]]:
            return [m.json for m in reader.messages if m.topic.endswith("/belt/detections")]

        try:
            reader.wait_for(lambda _messages: len(frames()) > 10 * FPS, LONG_S)
            for number in range(1, TRANSFERS + 1):
                files = {"model.onnx": b"not a model", "card.bin": os.urandom(mebibytes * MIB)}
                packed = fleet.controller.release(number, files=files)
                fleet.offer(packed)
                seen = len(frames())
                reader.wait_for(lambda _messages, n=seen: len(frames()) > n + 2 * FPS, LONG_S)
                fleet.assign(packed)
                reader.wait_for(lambda found, n=number: len(fleet.reports(found)) >= n, LONG_S)
                fleet.publish(dict.fromkeys(fleet.controller.pieces(packed), b""))
            states = [m.json for m in reader.messages if "/update/state/" in m.topic]
        finally:
            agents.kill()
    spans, begin = [], None
    for state in states:
        if state["state"] == "FETCHING":
            begin = state["ts"] if begin is None else begin
        elif begin is not None:
            spans.append((begin, state["ts"]))
            begin = None
    during, usual = [], []
    for frame in frames():
        inside = any(a <= frame["ts"] <= b for a, b in spans)
        near = any(a - 2 <= frame["ts"] <= b + 4 for a, b in spans)
        if inside:
            during.append(frame["lat_ms"]["total"])
        elif not near:
            usual.append(frame["lat_ms"]["total"])
    return {
        "transfers": len(spans),
        "seconds": round(sum(b - a for a, b in spans), 2),
        "frames_during": len(during),
        "frames_usual": len(usual),
        "usual_ms": {p: round(percentile(usual, s), 1) for p, s in SHARES.items()},
        "during_ms": {p: round(percentile(during, s), 1) for p, s in SHARES.items()},
        "p95_ratio": round(percentile(during, 0.95) / percentile(usual, 0.95), 2),
    }


SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached."""
    transfer, beside = found["transfer"], found["latency"]
    rows = [
        ("throughput beside raw paho", transfer["ratio"], ">= 0.6", transfer["ratio"] >= 0.6),
        ("memory grows by, MB", max(transfer["growth_mb"]), "<= 16",
         max(transfer["growth_mb"]) <= 16),
        ("blocks pulled twice after a kill half-way", transfer["pulled_twice"], f"<= {WINDOW}",
         transfer["pulled_twice"] <= WINDOW),
        ("p95 of detections during a transfer, ratio", beside["p95_ratio"], "<= 1.3",
         beside["p95_ratio"] <= 1.3),
    ]  # fmt: skip
    return [{"what": w, "figure": f, "target": t, "met": m} for w, f, t, m in rows]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("out/transfer.json"))
    parser.add_argument("--pull", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pull:
        port, folder, index_file = json.loads(options.pull)
        pull(port, Path(folder), Path(index_file))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("transfer", "latency"):
            (folder / part).mkdir()
        found = {
            "transfer": transfers(folder / "transfer", options.mebibytes, options.rounds),
            "latency": latency(folder / "latency", options.mebibytes),
        }
    result = {"machine": machine(), **found, "targets": targets(found)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    for target in result["targets"]:
        print(f"{target['what']}: {target['figure']} (target {target['target']}) "
              f"{'met' if target['met'] else 'MISSED'}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
