"""What goes into a support bundle. Nothing that holds keys, pictures or models is read."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from agent import askagent
from agent.check import as_dicts
from agent.configfile import load, shown
from agent.deep import full_check
from agent.deepmachine import Machine
from agent.doctor_host import HostFiles
from agent.errors import ServiceError
from agent.jetson import BoardFiles
from agent.servicelayout import UNIT
from agent.statefolder import default_state_dir
from agent.supportbundle import Part
from agent.versions import versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.config import Config

LOG_LINES = 5000
NO_PAGER = "--no-pager"
MAX_LISTED = 2000
"""Files of a folder that are listed."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "service.txt": ("systemctl", "show", UNIT),
    "unit.txt": ("systemctl", "cat", UNIT),
    "journal.txt": ("journalctl", "-u", UNIT, "-n", str(LOG_LINES), "-o", "short-iso", NO_PAGER),
    "kernel.txt": ("journalctl", "-k", "-n", "1000", "-o", "short-iso", NO_PAGER),
    "disks.txt": ("df", "-hT"),
    "memory.txt": ("free", "-m"),
    "addresses.txt": ("ip", "-brief", "address"),
    "clock.txt": ("timedatectl",),
    "packages.txt": ("dpkg-query", "-W", "-f", r"${Package} ${Version}\n", "nvidia-*", "*tensorrt*",
                     "cuda-*", "libcudnn*", "libopencv*", "python3-opencv*"),
}  # fmt: skip
"""Programs of the system; one that is missing is told in the list."""


def parts(path: Path, *, checks: bool, network: bool, timeout_s: float) -> list[Part]:
    """The most useful first.

    Args:
        path: the configuration; a bad one is told in the list.
        checks: run `vigia check --deep` too.
        network: see `agent.check.check`.
        timeout_s: for each camera and the broker.
    """
    machine = Machine()
    found = [
        Part("versions.json", "vigia version", lambda: _dump(versions())),
        Part("configuration.json", f"{path}, secrets hidden", lambda: _dump(shown(path))),
        Part("status.json", "the agent's own status", lambda: _asked(path, "/api/status")),
        Part("metrics.txt", "the agent's metrics", lambda: _asked(path, "/metrics")),
    ]
    if checks:
        look = partial(_checks, path, network, timeout_s)
        found.append(Part("check.json", "vigia check --deep", look))
    found += [
        Part("host.json", "processor, clocks, power mode, memory", partial(_host, machine)),
        Part("heat.json", "temperatures and rails", lambda: _dump(BoardFiles().look().as_dict())),
        Part("state.txt", "names and sizes in the state folder", lambda: _listing(path)),
    ]
    return [
        *found,
        *(Part(n, " ".join(c).strip(), partial(_run, machine, c)) for n, c in COMMANDS.items()),
    ]


def _dump(value: object) -> str:
    return json.dumps(value, indent=2, default=str)


def _asked(path: Path, what: str) -> str:
    return askagent.ask(load(path).http, what).decode("utf-8", "replace")


def _checks(path: Path, network: bool, timeout_s: float) -> str:
    config: Config = load(path)
    return _dump(as_dicts(full_check(config, path, network=network, timeout_s=timeout_s)))


def _host(machine: Machine) -> str:
    host = HostFiles(machine.root).read()
    return _dump({**host.summary(), "all": {**asdict(host), "features": sorted(host.features)}})


def _listing(path: Path) -> str:
    config = load(path)
    state = (config.updates and config.updates.state_dir) or default_state_dir()
    lines = []
    for count, file in enumerate(state.rglob("*")):
        if count >= MAX_LISTED:
            lines.append("...")
            break
        about = file.lstat()
        lines.append(f"{about.st_mode:o} {about.st_size} {file.relative_to(state)}")
    return "\n".join(lines) or f"{state} is empty or missing"


def _run(machine: Machine, command: Sequence[str]) -> str:
    ran = machine.run(command)
    if ran is None:
        raise ServiceError(f"{command[0]} is missing, or took too long")
    if ran.code != 0 and not ran.out:
        raise ServiceError(f"{command[0]} ended with {ran.code}: {ran.err.strip()}")
    return f"{ran.out}{ran.err}"
