"""The plan cache: built engines, sealed on disk, found again by everything that they depend on.

The cache is a convenience: whatever is wrong with it or with what lies in it is logged, and work
goes on without it. A plan opens only on this device, under its own key and beside its own unaltered
sidecar; any other is removed and built anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from engines.canonical import JSON, canonical
from engines.errors import PlanError
from engines.filelock import file_lock, folder_lock
from engines.planfolder import LOCK, PlanFolder
from engines.seal import SealKeyError
from engines.sidecar import Sidecar, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from engines.seal import Sealer

T = TypeVar("T")

log = logging.getLogger(__name__)

FOLDER_TIMEOUT_S = 60.0
"""How long others may hold the folder; writing a large plan to an SD card takes a part of it."""


class PlanKey:
    """Everything that a plan depends on, and its digest.

    Attributes:
        text: the parts as canonical JSON.
        hex: SHA-256 of it, 64 hexadecimal digits.

    Raises:
        TypeError: a part is not JSON; see `engines.canonical`.
    """

    def __init__(self, parts: Mapping[str, JSON]) -> None:
        self.text = canonical(parts)
        self.hex = hashlib.sha256(self.text.encode("ascii")).hexdigest()

    @property
    def parts(self) -> dict[str, Any]:
        """The parts, as they are read back from JSON."""
        parts: dict[str, Any] = json.loads(self.text)
        return parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlanKey) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"PlanKey({self.text})"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A plan that was found intact.

    Attributes:
        hex: its key.
        blob: what `engines.backend.Backend.load` takes.
        sidecar: what was given with it to `put`.
    """

    hex: str
    blob: bytes
    sidecar: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A plan in the folder, not opened.

    Attributes:
        hex: its key.
        bytes: what its two files take on the disk.
        created_s: wall clock at writing, seconds since 1970; may be wrong.
        key: the parts of its key.
        sidecar: what was given with it to `put`.
        problem: why it will not be used, as far as can be seen from outside; "" if nothing is.
    """

    hex: str
    bytes: int
    created_s: float
    key: Mapping[str, Any]
    sidecar: Mapping[str, Any]
    problem: str = ""


class PlanCache:
    """The folder; made with mode 0700 at the first write.

    Args:
        folder: where the plans are.
        sealer: seals and opens them.
        max_bytes: the least recently used plans beyond this size are removed.
    """

    def __init__(self, folder: Path, sealer: Sealer, max_bytes: int) -> None:
        self._folder = PlanFolder(folder)
        self._sealer = sealer
        self._max_bytes = max_bytes
        self._warned: set[str] = set()

    def get(self, key: PlanKey) -> Plan | None:
        """The intact plan for a key, or None; one that is not intact is removed.

        Never raises for the disk or for what is on it.
        """
        try:
            with self._locked():
                try:
                    found = self._folder.read(key.hex)
                except PlanError as error:
                    self._discard(key, error)
                    return None
            # The key may have to be made first, in this very folder: not while it is locked.
            return None if found is None else self._open(key, *found)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"plan cache {self._folder.path} cannot be read ({_reason(error)})")
        return None

    def put(self, key: PlanKey, blob: bytes, sidecar: Mapping[str, object]) -> bool:
        """Keep a plan; a plan of the same key is replaced.

        Args:
            key: what it will be asked for by.
            blob: the plan.
            sidecar: facts about it, as JSON values; NaN is kept as null.

        Returns:
            Whether it is kept. If the disk refuses, that is logged, and what was kept before stays.

        Raises:
            TypeError: `sidecar` holds something that JSON cannot say.
        """
        made = Sidecar(key.hex, key.parts, time.time(), plain(sidecar))
        try:
            sealed, content = self._seal(made, blob)
            self._folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                self._folder.sweep()
                self._folder.write(key.hex, sealed, content)
                self._folder.shrink(self._max_bytes)
        except (OSError, PlanError) as error:
            self._warn(f"a plan cannot be kept in {self._folder.path}: {_reason(error)}")
            return False
        return True

    @contextlib.contextmanager
    def lock(self, key: PlanKey, timeout_s: float) -> Iterator[bool]:
        """Be the only builder of a key, in all processes.

        Yields:
            True once it is ours; look the key up again then, another process may have built it.
            False if another process still builds it after `timeout_s`, or if the disk allows no
            locks, which is logged: nothing keeps others away then.
        """
        with contextlib.ExitStack() as stack:
            try:
                self._folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
                path = self._folder.path / (key.hex + LOCK)
                held = stack.enter_context(file_lock(path, timeout_s))
            except OSError as error:
                self._warn(f"plan cache {self._folder.path} cannot be locked ({_reason(error)})")
                held = False
            yield held

    def entries(self) -> list[Entry]:
        """The plans, most recently used first.

        Raises:
            PlanError: the folder cannot be read.
        """
        return self._change(lambda: [self._entry(h) for h in reversed(self._folder.by_use())])

    def remove(self, prefix: str) -> list[str]:
        """Remove every plan whose key begins with `prefix`.

        Returns:
            The removed plans' keys.

        Raises:
            PlanError: the disk refuses.
        """

        def act() -> list[str]:
            gone = [hex_ for hex_ in self._folder.by_use() if hex_.startswith(prefix)]
            for hex_ in gone:
                self._folder.unlink(hex_)
            return gone

        return self._change(act)

    def prune(self, max_bytes: int) -> list[str]:
        """Remove the least recently used plans beyond `max_bytes`, and what interruptions left.

        Returns:
            The removed plans' keys.

        Raises:
            PlanError: the disk refuses.
        """

        def act() -> list[str]:
            self._folder.sweep()
            return self._folder.shrink(max_bytes)

        return self._change(act)

    def _seal(self, made: Sidecar, blob: bytes) -> tuple[bytes, bytes]:
        sealed = self._sealer.seal(blob, made.binding)
        digest = hashlib.sha256(sealed).hexdigest()
        content = replace(made, sha256=digest, sealed_bytes=len(sealed)).encode()
        size = len(sealed) + len(content)
        if size > self._max_bytes:
            raise PlanError(
                f"it has {size} bytes and the cache may have {self._max_bytes}; allow it more"
            )
        return sealed, content

    def _open(self, key: PlanKey, sidecar: Sidecar, sealed: bytes) -> Plan | None:
        try:
            return Plan(key.hex, self._sealer.open(sealed, sidecar.binding), sidecar.facts)
        except SealKeyError as error:
            self._warn(f"plans cannot be opened: {error}")
        except PlanError as error:
            with self._locked():
                # Another process may have built it anew since the folder was let go.
                if self._folder.is_still(sidecar):
                    self._discard(key, error)
        return None

    def _discard(self, key: PlanKey, reason: PlanError) -> None:
        self._warn(f"plan {key.hex[:12]} is not used and is removed: {reason}")
        self._folder.unlink(key.hex)

    def _entry(self, hex_: str) -> Entry:
        size = self._folder.size(hex_)
        try:
            told = self._folder.sidecar(hex_)
        except (OSError, PlanError) as error:
            return Entry(hex_, size, 0.0, {}, {}, str(error))
        return Entry(hex_, size, told.created_s, told.key, told.facts)

    def _locked(self) -> contextlib.AbstractContextManager[int]:
        return folder_lock(self._folder.path, FOLDER_TIMEOUT_S)

    def _change(self, act: Callable[[], list[T]]) -> list[T]:
        try:
            with self._locked():
                return act()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise PlanError(
                f"plan cache {self._folder.path} cannot be used: {_reason(error)}"
            ) from error

    def _warn(self, text: str) -> None:
        """Say it once: a full disk is met at every plan."""
        if text not in self._warned:
            self._warned.add(text)
            log.warning("%s; going on without", text)


def _reason(error: Exception) -> str:
    """Without the names of temporary files, which differ each time."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
