"""Facts of this machine that built engines, and the choice among them, depend on.

Not among them is what may change from one start to the next without making an engine wrong: clocks,
temperature, free memory, the load.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CPUINFO = Path("/proc/cpuinfo")
BOARD = Path("/proc/device-tree/model")

MAX_CPUINFO_BYTES = 4 << 20
"""Far more than 256 processors with 3 kB of flags each."""

MODEL_FIELDS = ("model name", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")
FLAG_FIELDS = ("flags", "Features")

VECTOR_FLAG = re.compile(
    r"(avx|amx|fma|f16c|sse4|ssse3|asimd|neon|vfp|fp16|fphp|i8mm|bf16|dotprod|sve|sme(?!p))"
)
"""Beginnings of flags that decide which kernels a library takes."""

MEMORY_STEP_BYTES = 1 << 30


@functools.cache
def machine() -> Mapping[str, str]:
    """Processor, vector instructions, cores of this process, memory to the nearest GiB."""
    with CPUINFO.open("rb") as file:
        text = file.read(MAX_CPUINFO_BYTES).decode("utf-8", "replace")
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "architecture": os.uname().machine,
        **processor(text),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": memory_bucket(pages * page_bytes),
        **_board(),
    }


def processor(cpuinfo: str) -> dict[str, str]:
    """Model and vector flags from the text of /proc/cpuinfo.

    Kinds of cores that differ, as in big and little ones, are all named.
    """
    models: set[str] = set()
    flags: set[str] = set()
    for block in cpuinfo.split("\n\n"):
        fields = dict(re.findall(r"^([^\t:]+?)\s*: ?(.*)$", block, re.MULTILINE))
        models.add(" ".join(fields[name] for name in MODEL_FIELDS if name in fields))
        for name in FLAG_FIELDS:
            flags.update(filter(VECTOR_FLAG.match, fields.get(name, "").split()))
    return {
        "processor": "; ".join(sorted(models - {""})),
        "vectors": " ".join(sorted(flags)),
    }


def memory_bucket(total_bytes: int) -> str:
    """Memory in whole GiB; kernels that reserve a little more or less make no difference."""
    return f"{round(total_bytes / MEMORY_STEP_BYTES)} GiB"


def library(name: str) -> str:
    """An installed package's version, "" if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _board() -> dict[str, str]:
    """The board's name on machines with a device tree, as Jetsons have."""
    try:
        return {"board": BOARD.read_text("utf-8", "replace").strip("\0\n ")}
    except OSError:
        return {}
