"""A wall clock for one process that can be made to jump; the machine's own is left alone."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class WallClock:
    """Give `environment` to a process; `jump` moves its time of day at once.

    Args:
        folder: for the library and the offset.

    Attributes:
        environment: variables of the process; empty where there is no C compiler.
        missing: why there is no such clock here, or empty.
    """

    def __init__(self, folder: Path) -> None:
        self.environment: dict[str, str] = {}
        self.missing = ""
        self._offset = folder / "clock.offset"
        compiler = shutil.which("cc")
        if compiler is None:
            self.missing = "clock jumps: there is no C compiler (cc)"
            return
        library = folder / "clock.so"
        command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(self._offset)}

    def jump(self, offset_s: int) -> None:
        """Be so many seconds ahead of the machine's clock from now on; negative: behind."""
        # Written in place: the process has the file mapped.
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("=q", offset_s))
