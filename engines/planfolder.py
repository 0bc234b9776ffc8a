"""How plans lie in their folder. Everything here is called while the folder is locked.

A plan is two files: `HEX.plan`, sealed, and `HEX.json`, its sidecar.

- The folder is changed by one process at a time. A temporary file that is found there therefore
  belongs to nobody, however young it looks, and is removed.
- The sidecar is renamed into place last and removed first. A plan without one was interrupted; a
  plan that does not match its sidecar is never used.
- The order of last use is kept as the plans' modification times: 1, 2, 3 ... seconds after 1970,
  the newest highest. It needs no clock: a device without a battery starts at 1970, and a clock that
  was wrong once would otherwise put a plan first or last for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING

from engines.durable import open_regular, read_bounded, sync_folder, write_new
from engines.errors import PlanError
from engines.sidecar import MAX_BYTES, Sidecar, decode

if TYPE_CHECKING:
    from pathlib import Path

PLAN, SIDECAR, LOCK, TEMPORARY = ".plan", ".json", ".lock", "tmp-"
OURS = re.compile(r"[0-9a-f]{64}\.(plan|json)")


class PlanFolder:
    """The folder.

    Args:
        path: where it is; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def by_use(self) -> list[str]:
        """Keys of everything that has at least one of its two files, least recently used first.

        Raises:
            OSError: the folder cannot be read.
        """
        last_use: dict[str, int] = {}
        for path in self.path.iterdir():
            if OURS.fullmatch(path.name):
                last_use.setdefault(path.stem, 0)
                if path.suffix == PLAN:
                    last_use[path.stem] = path.lstat().st_mtime_ns
        return sorted(last_use, key=lambda hex_: (last_use[hex_], hex_))

    def sidecar(self, hex_: str) -> Sidecar:
        """What stands beside a plan, and whether the plan is there with the size it says.

        Raises:
            PlanError: something is missing or does not match.
            OSError: the files cannot be read.
        """
        try:
            content = read_bounded(self._file(hex_, SIDECAR), MAX_BYTES)
            size = self._file(hex_, PLAN).stat(follow_symlinks=False).st_size
        except FileNotFoundError as error:
            raise PlanError("writing it was interrupted") from error
        if content is None:
            raise PlanError("its description is too long")
        sidecar = decode(content)
        if sidecar.key_hex != hex_:
            raise PlanError("its description is another plan's")
        if sidecar.sealed_bytes != size:
            raise PlanError(f"it has {size} bytes instead of {sidecar.sealed_bytes}")
        return sidecar

    def read(self, hex_: str) -> tuple[Sidecar, bytes] | None:
        """A sealed plan and its sidecar, and make it the last one used; None if there is neither.

        Raises:
            PlanError: it is damaged.
            OSError: the files cannot be read.
        """
        if not any(os.path.lexists(self._file(hex_, kind)) for kind in (PLAN, SIDECAR)):
            return None
        sidecar = self.sidecar(hex_)
        sealed = read_bounded(self._file(hex_, PLAN), sidecar.sealed_bytes)
        if sealed is None or hashlib.sha256(sealed).hexdigest() != sidecar.sha256:
            raise PlanError("its bytes are not those that were written")
        self._touch(hex_)
        return sidecar, sealed

    def is_still(self, sidecar: Sidecar) -> bool:
        """Whether the plan that lies here is the one that a sidecar was read for."""
        try:
            return self.sidecar(sidecar.key_hex).sha256 == sidecar.sha256
        except (OSError, PlanError):
            return False

    def write(self, hex_: str, sealed: bytes, sidecar: bytes) -> None:
        """Put a plan in the place of the one of its key.

        Raises:
            OSError: the disk refuses; the former plan is still there unless a rename failed.
        """
        work = {kind: self.path / (TEMPORARY + secrets.token_hex(8)) for kind in (PLAN, SIDECAR)}
        try:
            write_new(work[PLAN], sealed)
            write_new(work[SIDECAR], sidecar)
            self._file(hex_, SIDECAR).unlink(missing_ok=True)
            work[PLAN].rename(self._file(hex_, PLAN))
            work[SIDECAR].rename(self._file(hex_, SIDECAR))
            sync_folder(self.path)
        finally:
            for path in work.values():
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        self._touch(hex_)

    def unlink(self, hex_: str) -> None:
        """Remove a plan.

        Raises:
            OSError: the disk refuses.
        """
        self._file(hex_, SIDECAR).unlink(missing_ok=True)
        self._file(hex_, PLAN).unlink(missing_ok=True)

    def size(self, hex_: str) -> int:
        """Bytes that a plan's two files take."""
        total = 0
        for kind in (PLAN, SIDECAR):
            with contextlib.suppress(OSError):
                total += self._file(hex_, kind).stat(follow_symlinks=False).st_size
        return total

    def sweep(self) -> None:
        """Remove what interruptions left: temporary files, half plans, locks that nobody holds.

        Raises:
            OSError: the disk refuses.
        """
        for path in list(self.path.iterdir()):
            if path.name.startswith(TEMPORARY):
                path.unlink(missing_ok=True)
            elif path.suffix == LOCK:
                _unlink_free(path)
        for hex_ in self.by_use():
            if not all(os.path.lexists(self._file(hex_, kind)) for kind in (PLAN, SIDECAR)):
                self.unlink(hex_)

    def shrink(self, max_bytes: int) -> list[str]:
        """Remove the least recently used plans beyond `max_bytes`; gives their keys.

        Raises:
            OSError: the disk refuses.
        """
        order = self.by_use()
        total = sum(map(self.size, order))
        gone = []
        while order and total > max_bytes:
            total -= self.size(order[0])
            self.unlink(order[0])
            gone.append(order.pop(0))
        return gone

    def _file(self, hex_: str, kind: str) -> Path:
        return self.path / (hex_ + kind)

    def _touch(self, hex_: str) -> None:
        """Make a plan the last one used; a folder that may only be read keeps its order."""
        order = [other for other in self.by_use() if other != hex_]
        with contextlib.suppress(OSError):
            for rank_s, each in enumerate([*order, hex_], 1):
                path = self._file(each, PLAN)
                if os.path.lexists(path) and path.lstat().st_mtime_ns != rank_s * 10**9:
                    os.utime(path, (rank_s, rank_s), follow_symlinks=False)


def _unlink_free(path: Path) -> None:
    """Remove a lock file unless somebody holds it."""
    with contextlib.suppress(OSError):
        descriptor = open_regular(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)
