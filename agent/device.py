"""What this device is and how it is doing, as far as any Linux machine can tell."""

from __future__ import annotations

import platform
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agent import __version__
from agent.jetson import BoardFiles

if TYPE_CHECKING:
    from agent.config import DeviceConfig

L4T_RELEASE = Path("/etc/nv_tegra_release")
"""Its first line begins like `# R36 (release), REVISION: 4.3`."""

JETPACKS = {"35": "5", "36": "6", "38": "7", "39": "7"}
"""JetPack by Jetson Linux."""

MAX_ID_LENGTH = 64
"""As `agent.config.NAME_PATTERN` allows."""


def device_id(config: DeviceConfig) -> str:
    """The configured id, or one made of the host name."""
    if config.id is not None:
        return config.id
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-_")
    return name[:MAX_ID_LENGTH] or "device"


def hardware() -> dict[str, object]:
    """Facts that do not change while the agent runs."""
    return {
        "machine": platform.machine(),
        "model": _board_model() or platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": psutil.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "agent": __version__,
    }


def hardware_class() -> str:
    """What bundles are made for, if the configuration does not say: the board, or the processor.

    A Jetson's is made of its device tree's model, e.g. `nvidia-jetson-orin-nano-developer-kit`.
    """
    board = _board_model()
    if board is None:
        return platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", board.lower()).strip("-")


def jetpack() -> str | None:
    """Major version of JetPack, told by Jetson Linux's; None where there is none."""
    try:
        text = L4T_RELEASE.read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"R(\d+) \(release\)", text)
    return JETPACKS.get(found[1]) if found else None


def memory_available() -> int:
    """Memory that can still be had without swapping, bytes."""
    return int(psutil.virtual_memory().available)


class HostProbe:
    """Load of the process and the machine; CPU shares are since the previous look."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._board = BoardFiles()
        self.look()

    def look(self) -> dict[str, object]:
        """One look: shares in percent (of one core for the process), bytes, degrees Celsius."""
        host: dict[str, object] = {
            "cpu_percent": psutil.cpu_percent(),
            "process_cpu_percent": self._process.cpu_percent(),
            "process_rss_bytes": self._process.memory_info().rss,
            "memory_available_bytes": memory_available(),
        }
        # Not every system that psutil runs on has sensors.
        sensors: dict[str, list[Any]] = getattr(psutil, "sensors_temperatures", dict)()
        readings = [reading.current for group in sensors.values() for reading in group]
        if readings:
            host["temperature_max_c"] = max(readings)
        return {**host, **self._board.look().as_dict()}


def _board_model() -> str | None:
    """A Jetson's device tree names its board; the text ends with a NUL."""
    try:
        text = Path("/proc/device-tree/model").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.strip("\0 \n") or None
