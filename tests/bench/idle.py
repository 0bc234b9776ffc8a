"""What an agent takes of a core while its only camera gives nothing.

    scripts/bench idle [--seconds 30] [--out out/idle.json]

A real `vigia run`, with broker, page, spool and the demo's model. Its camera is away (nobody
listens at its address), or hangs (its server stands still after a few frames). Counted is processor
time of the whole process, after the first seconds: other work on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.bench.machine import machine
from tests.integration.environment import installed
from tests.integration.mosquitto import Mosquitto
from tests.integration.ports import free_port
from tests.integration.servers import RtspServer, has_rtsp_server
from tests.integration.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "conveyor" / "conveyor-n.onnx"
PREFIX = "idle"
SOON_S = 60.0
SETTLE_S = 8.0
"""After the camera went: what hung is given up by then, what failed waits for its next attempt."""
TARGET_PERCENT = 2.0


def cpu_s(pid: int) -> float:
    """Processor time that a process has taken, in seconds: its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    """How often the threads of a process have begun to wait: what a poll costs besides time."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("voluntary_"))
        total += int(line.split()[1])
    return total


def measure(
    folder: Path, seconds: float, source: str, pause: Callable[[Subscriber], None]
) -> dict[str, float]:
    """Start an agent with one camera, have the camera go, and look.

    Args:
        folder: for everything.
        seconds: how long to look.
        source: of the camera.
        pause: called once the agent serves; has the camera give nothing more.
    """
    broker = Mosquitto(folder / "broker", {"plain": ("allow_anonymous true",)})
    broker.start()
    config = folder / "agent.yaml"
    config.write_text(yaml.safe_dump(settings(folder, broker.port, source)))
    try:
        with Subscriber(broker.port, f"{PREFIX}/#", qos=1) as reader:
            with (folder / "agent.log").open("ab") as log:
                agent = subprocess.Popen(
                    [sys.executable, "-m", "agent", "run", "-c", str(config)],
                    stderr=log,
                    cwd=ROOT,
                    env={**installed(), "XDG_CACHE_HOME": str(folder / "cache")},
                )
            try:
                pause(reader)
                time.sleep(SETTLE_S)
                before, waits, began = cpu_s(agent.pid), switches(agent.pid), time.monotonic()
                time.sleep(seconds)
                took, passed = cpu_s(agent.pid) - before, time.monotonic() - began
                waits = switches(agent.pid) - waits
                assert agent.poll() is None, (folder / "agent.log").read_text()
            finally:
                agent.terminate()
                agent.wait(SOON_S)
    finally:
        broker.kill()
    return {
        "percent_of_a_core": round(100 * took / passed, 2),
        "waits_per_s": round(waits / passed, 1),
    }


def settings(folder: Path, port: int, source: str) -> dict[str, Any]:
    """Of the agent: the defaults, but for times that would make a short look depend on luck."""
    return {
        "device": {"id": "d"},
        "mqtt": {"host": "127.0.0.1", "port": port, "prefix": PREFIX},
        "http": {"port": free_port()},
        "cameras": {"gate": {"source": source, "stall_timeout_s": 2, "open_timeout_s": 4}},
        "models": {"main": {"path": str(MODEL), "backend": "onnxruntime", "precision": "fp32"}},
        "spool": {"dir": str(folder / "spool")},
    }


def ways(folder: Path, seconds: float) -> dict[str, Any]:
    """Both kinds of a camera that gives nothing."""
    found: dict[str, Any] = {}

    def serves(reader: Subscriber) -> None:
        reader.wait_for(lambda all_: any(m.topic.endswith("/telemetry") for m in all_), SOON_S)

    (folder / "away").mkdir()
    nobody = f"rtsp://127.0.0.1:{free_port()}/nobody"
    found["away"] = measure(folder / "away", seconds, nobody, serves)
    if not has_rtsp_server():
        return found
    server = RtspServer()
    server.start()

    def hang(reader: Subscriber) -> None:
        reader.wait_for(lambda all_: any(m.topic.endswith("/detections") for m in all_), SOON_S)
        server.signal(signal.SIGSTOP)

    (folder / "hangs").mkdir()
    try:
        found["hangs"] = measure(folder / "hangs", seconds, server.url(), hang)
    finally:
        server.signal(signal.SIGCONT)
        server.kill()
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "idle.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigia-idle-") as name:
        cameras = ways(Path(name), options.seconds)
    worst = max(row["percent_of_a_core"] for row in cameras.values())
    report = {
        "machine": machine(),
        "seconds": options.seconds,
        "cameras": cameras,
        "targets": [
            {
                "what": "idle agent, percent of a core",
                "figure": worst,
                "target": f"< {TARGET_PERCENT:g}",
                "met": worst < TARGET_PERCENT,
            }
        ],
    }
    text = json.dumps(report, indent=2)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
