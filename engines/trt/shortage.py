"""Builds that need more memory than there is."""

from __future__ import annotations

import re

from engines.errors import BuildError

ADVICE = "set tensorrt.workspace_mb lower and tensorrt.level to 2, or stop other programs meanwhile"

EXHAUSTED = (
    "the build wanted more memory than there is, or than tensorrt.build_memory_mb allows if that "
    "is set"
)

TEXT = re.compile(r"out ?of ?memory|insufficient (device )?memory", re.IGNORECASE)
"""Log lines that say memory is short."""


class BuildMemoryError(BuildError):
    """Memory ran out; another route would need as much."""
