"""Folders that lie in memory only: where a bundle's plaintext is while it is used.

They are made in a tmpfs (https://docs.kernel.org/filesystems/tmpfs.html), which is verified, never
assumed. What a process that has died has left there is removed by the next one. Pages of a tmpfs
can go to swap; where swap lies on a disk, that is logged, since only who runs the device can
encrypt it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agent.errors import StoreError
from engines.filelock import folder_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

log = logging.getLogger(__name__)

MEMORY_TYPES = frozenset({"tmpfs", "ramfs"})
"""File systems that have no disk below them."""

MOUNTS = Path("/proc/self/mountinfo")
SWAPS = Path("/proc/swaps")

SPARE_BYTES = 64 * 2**20
"""Memory that is left to the rest of the system, at the least, beside what is stored."""

LOCK_TIMEOUT_S = 10.0
"""Others hold the lock for as long as they remove what the dead have left."""

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,159}$")

WORK = "work"
"""The folder for temporary files; no bundle's, since those are named by their digests."""


def default_places() -> tuple[Path, ...]:
    """Where a tmpfs is to be expected, best first.

    systemd's `RuntimeDirectory=` (systemd.exec(5); several are parted by colons), the XDG base
    directory specification's folder, and the POSIX shared memory of Linux (shm_overview(7)).
    """
    given = [
        *os.environ.get("RUNTIME_DIRECTORY", "").split(":"),
        os.environ.get("XDG_RUNTIME_DIR", ""),
        "/dev/shm",  # noqa: S108 - what is made there is 0700 and verified to be ours
    ]
    return tuple(Path(text) for text in given if text)


class MemoryFolder:
    """Named folders in memory, this process's own.

    Args:
        places: where to look for a tmpfs, best first; None for `default_places()`.
        max_bytes: what one folder may be asked to hold.
        available: memory that can still be had, bytes.

    Raises:
        StoreError: none of the places is a tmpfs where this user may write.
    """

    def __init__(
        self,
        places: Sequence[Path] | None = None,
        *,
        max_bytes: int = 2**40,
        available: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
    ) -> None:
        self._max_bytes = max_bytes
        self._available = available
        self._lock = threading.Lock()
        self._homes: list[_Home] = []
        faults: list[str] = []
        for place in default_places() if places is None else places:
            try:
                self._homes.append(_Home(place))
            except (OSError, StoreError) as error:
                faults.append(f"{place}: {error.strerror if isinstance(error, OSError) else error}")
        if not self._homes:
            raise StoreError(
                f"there is no folder in memory for plaintext ({'; '.join(faults)}); give the "
                "service RuntimeDirectory=, or mount a tmpfs on /dev/shm"
            )
        _warn_of_swap()

    @property
    def work(self) -> Path:
        """A folder for temporary files, as `TMPDIR` of processes that handle plaintext."""
        folder = self._homes[0].path / WORK
        with self._lock:
            folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def make(self, name: str, size: int) -> Path:
        """Make an empty folder; one of the same name is removed first.

        Args:
            name: e.g. a digest.
            size: bytes that it is to hold.

        Raises:
            StoreError: there is no room for them, or the name is none.
        """
        if not NAME.fullmatch(name) or name == WORK:
            raise StoreError(f"{name!r} is no name of a folder in memory")
        if size > self._max_bytes:
            raise StoreError(f"{size} bytes are more than the {self._max_bytes} allowed in memory")
        self.remove(name)
        with self._lock:
            home = self._roomy(size)
            folder = home.path / name
            try:
                folder.mkdir(mode=0o700)
            except OSError as error:
                raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
            return folder

    def remove(self, name: str) -> None:
        """Remove a folder with all that is in it; nothing happens if there is none."""
        with self._lock:
            for home in self._homes:
                shutil.rmtree(home.path / name, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Remove every folder but these, and what is in the one for temporary files."""
        with self._lock:
            for home in self._homes:
                for folder in home.path.iterdir() if home.path.is_dir() else ():
                    if folder.name not in names:
                        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything; may be called twice."""
        with self._lock:
            homes, self._homes = self._homes, []
        for home in homes:
            home.close()

    def _roomy(self, size: int) -> _Home:
        free = self._available() - SPARE_BYTES
        rooms = [home.free() for home in self._homes]
        for home, room in zip(self._homes, rooms, strict=True):
            if size <= min(room, free):
                return home
        raise StoreError(
            f"{size >> 20} MB are to be opened in memory, but only "
            f"{max(0, min(max(rooms, default=0), free)) >> 20} MB are free there"
        )


class _Home:
    """This process's folder in one place, locked as long as the process lives.

    Raises:
        StoreError: the place is no tmpfs, or somebody else has taken the folder's name.
        OSError: it cannot be used.
    """

    def __init__(self, place: Path) -> None:
        _require_memory(place)
        base = place / f"vigia-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
        _require_own(base)
        try:
            with folder_lock(base, LOCK_TIMEOUT_S):
                # Under the lock, or another process could take this one, not locked yet, for dead.
                _sweep(base)
                self.path = base / f"{os.getpid()}-{secrets.token_hex(4)}"
                self.path.mkdir(mode=0o700)
                self._descriptor = _open_folder(self.path)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except TimeoutError as error:
            raise StoreError(str(error)) from error

    def free(self) -> int:
        """Bytes that the file system still holds."""
        status = os.statvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _sweep(base: Path) -> None:
    """Remove the folders whose owner is dead: the kernel has released their locks."""
    for folder in base.iterdir():
        try:
            descriptor = _open_folder(folder)
        except OSError:
            # Not a folder of ours; what it is does not matter.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            log.info("%s: removed, the process that made it is dead", folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _require_own(folder: Path) -> None:
    """In a folder where everybody may write, the name could have been taken before us."""
    status = folder.lstat()
    private = stat.S_IMODE(status.st_mode) == stat.S_IRWXU
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or not private:
        raise StoreError(f"{folder} is not a private folder of this user; remove it")


def _require_memory(place: Path) -> None:
    """Whether a folder lies in a tmpfs, by the device number of its mount; see proc(5)."""
    device = place.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in MOUNTS.read_text("utf-8", "replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split(" ")[2] == number and source.split(" ")[0] in MEMORY_TYPES:
            return
    raise StoreError("not in memory: the file system is no tmpfs")


def _warn_of_swap() -> None:
    """Say it if memory can reach a disk; zram compresses into memory."""
    with contextlib.suppress(OSError):
        for line in SWAPS.read_text("utf-8", "replace").splitlines()[1:]:
            if line and not line.startswith("/dev/zram"):
                log.warning(
                    "swap on %s: parts of opened models can get onto it; encrypt it, or use zram",
                    line.split()[0],
                )
