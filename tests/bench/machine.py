"""What a benchmark was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from agent.device import hardware


def machine() -> dict[str, Any]:
    """Facts of this machine, with its processor's name and the cores that may be used."""
    name = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    facts = {k: v for k, v in hardware().items() if k not in ("model", "agent")}
    return {**facts, "processor": name, "usable_cores": len(os.sched_getaffinity(0))}
