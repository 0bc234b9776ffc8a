"""Files that are wholly there or not at all, also after a power cut."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, mode 0600, down to the disk; no part of it stays.

    Raises:
        OSError: it exists, or the disk refuses.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        try:
            rest = memoryview(content)
            while rest:
                # One call writes at most 2 GiB.
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            raise


def replace_file(path: Path, content: bytes) -> None:
    """Put a file, mode 0600, in the place of an older one: one of both is there, never less.

    One process at a time: what an interrupted one left is removed by the next.

    Raises:
        OSError: the disk refuses; what was there before stays.
    """
    work = path.with_name(f".{path.name}.new")
    work.unlink(missing_ok=True)
    write_new(work, content)
    try:
        work.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            work.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> int:
    """Open a file for reading: no link, and nothing that could block like a pipe.

    Returns:
        A descriptor, the caller's to close.

    Raises:
        OSError: it cannot be opened, or is no ordinary file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no ordinary file")
    return descriptor


def read_bounded(path: Path, limit: int) -> bytes | None:
    """Read a file; None if it is larger than `limit` bytes.

    Raises:
        OSError: it cannot be read, or is no ordinary file.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > limit:
            return None
        content = file.read(limit + 1)
        return content if len(content) <= limit else None
