"""Locks between processes that end with their holder, however it ends.

They are `flock` locks: the kernel releases them when the holder's descriptor is closed, by a kill
too. Each block opens its own descriptor, so they also work between threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_S = 0.02
"""How often a lock that others hold is tried again."""


def acquire(descriptor: int, timeout_s: float) -> bool:
    """Take the exclusive lock of an open file; False if others held it for `timeout_s`.

    Raises:
        OSError: this file system knows no locks.
    """
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                return False
            time.sleep(POLL_S)
        else:
            return True


@contextlib.contextmanager
def folder_lock(folder: Path, timeout_s: float) -> Iterator[int]:
    """Be alone in a folder among all that use this lock. Needs no right to write.

    Yields:
        The folder's descriptor.

    Raises:
        TimeoutError: others held it for `timeout_s`.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not acquire(descriptor, timeout_s):
            raise TimeoutError(f"another process has held {folder} for {timeout_s:g} s")
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[bool]:
    """Hold a lock file, which exists only while it is held or waited for.

    Yields:
        Whether it is held; False if others held it for `timeout_s`.

    Raises:
        OSError: the file cannot be made.
    """
    end_s = time.monotonic() + timeout_s
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            held = acquire(descriptor, max(0.0, end_s - time.monotonic()))
            # The holder before us removed the name: whoever comes next would lock another file.
            if held and not _is_named(descriptor, path):
                continue
            try:
                yield held
            finally:
                if held:
                    # A name that stays does no harm: whoever locks it next removes it.
                    with contextlib.suppress(OSError):
                        path.unlink()
            return
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))
