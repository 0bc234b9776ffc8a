"""A disk of its own for a test, that can be full or read-only also for root."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SmallDisk:
    """A mounted tmpfs.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path, size_kib: int) -> None:
        self.folder = folder
        folder.mkdir()
        options = f"size={size_kib}k,mode=0700"
        if self._mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
            pytest.skip("mounting a tmpfs needs more rights than this test has")

    def read_only(self) -> None:
        assert self._mount("-o", "remount,ro", str(self.folder)) == 0

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    @staticmethod
    def _mount(*arguments: str) -> int:
        return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode


def small_disk(tmp_path: Path, size_kib: int = 1024) -> Iterator[SmallDisk]:
    """The body of a fixture."""
    disk = SmallDisk(tmp_path / "disk", size_kib)
    yield disk
    disk.end()
