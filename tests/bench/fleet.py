"""A roll-out to simulated devices through one broker: time, bytes, failures, memory.

    python -m tests.bench.fleet [--devices 100,1000] [--mebibytes 5] [--out out/fleet.json]

Everything is as in use: a fleet folder, Mosquitto with the files that lie in it, mutual TLS and the
access list. Broker, controller and all devices share this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from fleet.bundlefiles import BundleFiles
from fleet.controlling import find_bundle, publish
from fleet.fleetfolder import Fleet
from fleet.layout import Layout
from fleet.link import Outlet
from fleet.packing import Contents, pack_bundle
from fleet.releasing import complete, sign_pending, stage
from fleet.simulate import Simulation, simulate
from tests.bench.machine import machine
from tests.fakes.fleetfolder import found_fleet, open_fleet, remembered_derivations
from tests.integration.mosquitto import START_S, _listens, binary
from tests.integration.ports import free_port
from tests.integration.subscriber import until
from tests.vectors.bundles import CONVEYOR, facts

MIB = 2**20
MB = 1e6
TARGET_DEVICES = 1000
FLAT_MB = 16.0
"""As much as a device may grow by during a transfer; a controller keeps less."""


def release(fleet: Fleet, folder: Path, mebibytes: int, broker: psutil.Process) -> dict[str, Any]:
    """Pack, sign and publish a bundle of about this size; how long the broker took to take it."""
    pictures = folder / "pictures"
    pictures.mkdir()
    rest = mebibytes * MIB - CONVEYOR.stat().st_size
    for number in range(max(rest // MIB, 0) + 1):
        size = min(MIB, rest - number * MIB)
        if size > 0:
            (pictures / f"{number}.jpg").write_bytes(os.urandom(size))
    row = pack_bundle(
        fleet.database,
        fleet.vault.wrap_secret,
        fleet.layout.bundles,
        Contents(CONVEYOR, calibration=pictures),
        facts(),
        lambda *_: None,
    )
    stage(fleet, row)
    sign_pending(fleet, ("release-1", "release-2"), lambda _review: None)
    assert complete(fleet).complete
    with Outlet(fleet.mqtt) as outlet:
        began = time.perf_counter()
        blocks = publish(fleet, outlet, row, lambda *_: None)
        seconds = time.perf_counter() - began
    files = BundleFiles(fleet.layout.bundles / row.folder)
    return {
        "bytes": files.manifest.ciphertext.length,
        "blocks": blocks,
        "publish_s": round(seconds, 2),
        "broker_rss_mb": round(broker.memory_info().rss / MB, 1),
    }


def rehearse(fleet: Fleet, devices: int, window: int, broker: psutil.Process) -> dict[str, Any]:
    """One roll-out."""
    row = find_bundle(fleet, facts().family, facts().version)
    before = sum(broker.cpu_times()[:2])
    with Outlet(fleet.mqtt) as outlet:
        result = simulate(fleet, outlet, row, Simulation(devices, window, 900.0), lambda *_: None)
    return {
        **result.as_dict(),
        "window": window,
        "mb_per_s": round(result.bytes / MB / result.seconds, 1),
        "broker_cpu_s": round(sum(broker.cpu_times()[:2]) - before, 1),
        "broker_peak_mb": peak_mb(broker.pid),
    }


def peak_mb(pid: int) -> float:
    """The most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) * 1024 / MB, 1)


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for, and whether it was met; of the largest roll-out."""
    row = max(rows, key=lambda row: row["devices"])
    committed = row["outcomes"].get("COMMITTED", 0)
    grown = round(row["rss_peak_mb"] - row["rss_begin_mb"], 1)
    return [
        {
            "what": f"of {row['devices']} simulated devices committed",
            "figure": committed,
            "target": f"all, of {TARGET_DEVICES}",
            "met": committed == row["devices"] >= TARGET_DEVICES,
        },
        {
            "what": "controller's memory grew by, MB",
            "figure": grown,
            "target": f"flat: at most {FLAT_MB:g}",
            "met": grown <= FLAT_MB,
        },
    ]


def table(report: dict[str, Any]) -> Table:
    """For the terminal."""
    headings = ("devices", "committed", "s", "MB", "MB/s", "lost", "controller MB", "broker cpu s")
    shown = Table(*headings, box=None)
    for row in report["rows"]:
        shown.add_row(
            str(row["devices"]),
            str(row["outcomes"].get("COMMITTED", 0)),
            f"{row['seconds']:.1f}",
            f"{row['bytes'] / MB:.0f}",
            f"{row['mb_per_s']:.0f}",
            str(row["disconnects"]),
            f"{row['rss_begin_mb']:.0f} .. {row['rss_peak_mb']:.0f}",
            f"{row['broker_cpu_s']:.0f}",
        )
    return shown


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", default="100,1000")
    parser.add_argument("--mebibytes", type=int, default=5)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("out/fleet.json"))
    options = parser.parse_args()
    counts = [int(part) for part in options.devices.split(",")]
    with tempfile.TemporaryDirectory() as name, remembered_derivations():
        folder = Path(name)
        place = found_fleet(folder / "fleet", broker_port=free_port())
        config = Layout(place).broker / "mosquitto.conf"
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([binary(), "-c", config], stdout=quiet, stderr=quiet)
        try:
            with open_fleet(place) as fleet:
                until(lambda: _listens(fleet.settings.broker_port), START_S)
                broker = psutil.Process(process.pid)
                bundle = release(fleet, folder, options.mebibytes, broker)
                rows = []
                for count in counts:
                    rows.append(rehearse(fleet, count, options.window, broker))
                    print(rows[-1], file=sys.stderr)
        finally:
            process.terminate()
            process.wait()
    report = {
        "machine": machine(),
        "bundle": bundle,
        "rows": rows,
        "targets": targets(rows),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    Console().print(table(report))


if __name__ == "__main__":
    main()
