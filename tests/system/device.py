"""A device in a container: the releases that it is given, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.system.container import PLACE, RUN_S, Container, sources, wheels
from tests.system.record import ROOT

FIRST, SECOND, BROKEN = "0.1.0", "0.1.1", "0.1.2"

READY_S = 15.0
BACK_S = 15.0
"""From the moment of a fault until the service is ready again, beside the watchdog's own time."""

VIGIA = "/usr/local/bin/vigia"
DROPIN = "/etc/systemd/system/vigia-agent.service.d/50-test.conf"
GROUP = "/sys/fs/cgroup/system.slice/vigia-agent.service"

CONFIG = """mqtt:
  host: 127.0.0.1
cameras:
  belt: {source: /opt/belt/sample.mp4, loop: true, realtime: true}
models:
  main: {path: /opt/belt/conveyor-n.onnx, confidence: 0.4}
"""

# Whatever there is; not what every running system changes by itself.
PASSED_OVER = ("proc", "sys", "run", "tmp", "var/log", "var/tmp", "root", "opt/belt")
INVENTORY = (
    rf"find / -xdev \( {' -o '.join(f'-path /{p}' for p in PASSED_OVER)} \) -prune -o -print | sort"
)


@contextlib.contextmanager
def booted() -> Iterator[Container]:
    """A machine that sees three releases in `/src`: one as source, two as wheels."""
    folder = PLACE / f"run-{time.time_ns()}"
    source = folder / "source"
    source.mkdir(parents=True)
    try:
        sources(source / "first", FIRST)
        wheel(sources(folder / "second", SECOND), source)
        broken = sources(folder / "broken", BROKEN)
        # Runs, and fails as soon as it serves: nothing that an installer could see before.
        with (broken / "agent" / "daemon.py").open("a") as daemon:
            daemon.write("\n\ndef run(*_: object) -> int:\n    raise SystemExit(9)\n")
        wheel(broken, source)
        package(source / "first", source / "vigia-agent.deb")
        shutil.copytree(ROOT / "examples" / "conveyor", source / "conveyor")
        shutil.copy(Path(__file__).with_name("probe.py"), source)
        machine = Container(folder / "machine", source)
        try:
            yield machine
        finally:
            machine.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wheel(source: Path, folder: Path) -> None:
    """Build a release."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel",
               "--no-deps", "--no-index", "--find-links", str(wheels()), "-w", str(folder),
               str(source)]  # fmt: skip
    subprocess.run(command, check=True, timeout=RUN_S)


def package(source: Path, file: Path) -> None:
    """Build the Debian package."""
    folder = file.with_suffix("")
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels())}
    command = [str(source / "scripts" / "build-deb"), str(folder)]
    subprocess.run(command, check=True, timeout=RUN_S, env=environ, stdout=subprocess.DEVNULL)
    next(folder.iterdir()).rename(file)
    folder.rmdir()


def release(version: str) -> str:
    """Where the machine sees a release that is a wheel."""
    return f"/src/vigia_agent-{version}-py3-none-any.whl"


def install(machine: Container, source: str, *options: str) -> str:
    """Run the installer of a source tree; what it said."""
    return machine.run(f"/src/{source}/scripts/install", *options).stdout


def version(machine: Container) -> str:
    """Of the release that serves."""
    return machine.run(VIGIA, "version").stdout.splitlines()[0]


def pid(machine: Container) -> int:
    """Of the service's process."""
    return int(machine.show("MainPID"))


def another(was: int) -> str:
    """A script that succeeds once another process than this is ready."""
    # In this order: one that dies is active for a moment, without a process.
    other = f"p=$(systemctl show -P MainPID vigia-agent); [ $p != {was} ] && [ $p != 0 ]"
    return f"{other} && systemctl is-active vigia-agent"


def serves(machine: Container) -> float:
    """Detections of a frame arrive at the broker; the seconds until the first."""
    began = time.monotonic()
    topic = "vigia/v1/+/cam/belt/detections"
    said = machine.run(
        "mosquitto_sub", "-h", "127.0.0.1", "-t", topic, "-C", "1", "-W", "15"
    ).stdout
    assert json.loads(said)["cam"] == "belt"
    return time.monotonic() - began


def since_boot_s(machine: Container, name: str) -> float:
    """One of the unit's monotonic stamps."""
    return int(machine.show(f"{name}TimestampMonotonic")) / 1e6


@contextlib.contextmanager
def dropin(machine: Container, text: str) -> Iterator[None]:
    """Settings of the unit, for a while."""
    machine.write(DROPIN, text)
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.shell(f"rm {DROPIN}; systemctl daemon-reload")
