"""The GPU and the system around it, as far as engines depend on them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

L4T_RELEASE = Path("/etc/nv_tegra_release")
"""Names the release of NVIDIA's Linux for Tegra; Jetsons have it."""

KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
"""Names the kernel driver's version; desktop cards and JetPack 7 have it."""

GIB = 1 << 30


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
