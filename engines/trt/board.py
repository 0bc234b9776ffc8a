"""The GPU and the system around it, as far as engines depend on them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.trt.cuda import CudaPort

L4T_RELEASE = Path("/etc/nv_tegra_release")
"""Names the release of NVIDIA's Linux for Tegra; Jetsons have it."""

KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
"""Names the kernel driver's version; desktop cards and JetPack 7 have it."""

MEMORY = Path("/proc/meminfo")

GIB = 1 << 30
KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class Board:
    """What a build must know of the machine.

    Attributes:
        name: the GPU's name.
        compute_capability: "8.7" for Orin.
        multiprocessors: streaming multiprocessors.
        integrated: CPU and GPU share their memory.
        memory_bytes: of the GPU; of the board where it is shared.
        driver: CUDA version of the driver, "12.6".
    """

    name: str
    compute_capability: str
    multiprocessors: int
    integrated: bool
    memory_bytes: int
    driver: str

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def fingerprint(self) -> Mapping[str, str]:
        """What of it a plan depends on."""
        return {
            "gpu": self.name,
            "compute_capability": self.compute_capability,
            "multiprocessors": str(self.multiprocessors),
            "integrated": str(self.integrated),
            "memory": f"{round(self.memory_bytes / GIB)} GiB",
            "driver": self.driver,
            "kernel_driver": first_line(KERNEL_DRIVER),
            "l4t": first_line(L4T_RELEASE),
        }


def first_line(path: Path) -> str:
    """The first line of a system file; empty where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(1000).strip()
    except OSError:
        return ""


def available_bytes(cuda: CudaPort) -> int:
    """GPU memory that a build can get.

    On integrated GPUs CUDA counts the page cache as used, which the kernel gives back on demand.
    """
    with cuda.pushed():
        free, _ = cuda.memory()
    if cuda.board.integrated:
        free = max(free, _host_available())
    return free


def _host_available() -> int:
    try:
        text = MEMORY.read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * KIB if found else 0
