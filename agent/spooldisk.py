"""What the spool has on its disk, and what happens when the disk fails; used by one thread.

No error leaves this module: a failure is told and counted, and tried again later.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.errors import StoreError
from agent.spoolfile import DamagedError, SpoolFile, set_aside
from agent.spoolitem import NUMBER_BITS, PRIORITIES, Item, first_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from agent.config import SpoolConfig
    from agent.spoolwindow import Window
    from agent.wire.events import EventKind, Severity

READ_AHEAD = 64
"""Items read at a time to be sent."""

RETRY_S = 30.0
"""A disk that failed is tried again after this."""

AGE_CHECK_S = 10.0

PLAUSIBLE_S = 1_577_836_800.0
"""2020: what is older was made before the clock was set, and its age is not known."""


class Tell(Protocol):
    """See `agent.events.Events.tell`."""

    def __call__(self, kind: EventKind, severity: Severity, what: str, **data: object) -> None:
        """Something happened."""


def _nobody(kind: EventKind, severity: Severity, what: str, **data: object) -> None:
    """Nobody wants to be told yet."""


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """What happened since the start, and what lies there."""

    state: str
    messages: int
    size_bytes: int
    written: int
    transactions: int
    failures: int
    damaged: int
    dropped: dict[str, int]


class Disk:
    """The file while it works; nothing while it does not.

    Args:
        path: the file; None: there is none.
        settings: bounds.
        now: seconds since the epoch.
        clock: monotonic seconds.

    Attributes:
        tell: told when the disk fails, and when it is well again.
        last: greatest number of an item when the file was opened; -1 if there was none.
        gone: keys of items to be deleted at the next change.
        gone_since: since when such wait; None if none do.
    """

    def __init__(
        self,
        path: Path | None,
        settings: SpoolConfig,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.tell: Tell = _nobody
        self.last = -1
        self.gone: set[int] = set()
        self.gone_since: float | None = None
        self._path = path
        self._settings = settings
        self._now = now
        self._clock = clock
        self._file: SpoolFile | None = None
        self._retry_at: float = float("inf") if path is None else clock()
        self._age_at = clock()
        self._failure = ""
        self._condemned: DamagedError | None = None
        self._replaced_at = -float("inf")
        self._counts: Counter[str] = Counter()
        self._ahead: dict[int, deque[Item]] = {}
        self._cursor: dict[int, int] = {}
        self._more: set[int] = set()
        self._dropped: Counter[str] = Counter()
        self._reset()

    @property
    def usable(self) -> bool:
        """True while the file can be used."""
        return self._file is not None

    @property
    def all_sent(self) -> bool:
        """True if nothing on the disk is still to be sent."""
        return not self._more and not any(self._ahead.values())

    def open(self, window: Window) -> bool:
        """Open the file if that is to be tried.

        Returns:
            True if it is open now and was not.
        """
        if self._path is None or self._file is not None or self._clock() < self._retry_at:
            return False
        try:
            if self._condemned is None:
                try:
                    self._file = SpoolFile(self._path)
                except DamagedError as error:
                    self._condemned = error
            if self._condemned is not None:
                self._replace(self._path, self._condemned, window)
                self._file = SpoolFile(self._path)
            assert self._file is not None
            self.last = max(self._file.last(p) - first_key(p) for p in PRIORITIES)
        except StoreError as error:
            self._fail(error, window.keys())
            return False
        self._reset()
        self._more = set(PRIORITIES)
        if self._failure:
            self._failure = ""
            self.tell("spool", "info", "the spool is on its disk again")
        return True

    def next(self, priority: int, spare: Collection[int]) -> Item | None:
        """The next item of a priority that is to be sent, which stays; None if there is none."""
        ahead = self._ahead[priority]
        if not ahead and priority in self._more and self._file is not None:
            # Those on their way, and those to be deleted, do not count.
            limit = READ_AHEAD + len(spare) + len(self.gone)
            try:
                rows = self._file.read(priority, self._cursor[priority], limit)
            except StoreError as error:
                self._fail(error, spare)
                return None
            ahead.extend(i for i in rows if i.key not in spare and i.key not in self.gone)
            if len(rows) < limit:
                self._more.discard(priority)
        return ahead[0] if ahead else None

    def sent(self, item: Item) -> None:
        """The item that `next` gave was handed over."""
        self._ahead[item.priority].popleft()
        self._cursor[item.priority] = item.key

    def remove(self, keys: Iterable[int]) -> None:
        """These are to be deleted at the next change."""
        self.gone.update(keys)
        if self.gone and self.gone_since is None:
            self.gone_since = self._clock()

    def change(self, new: list[Item], sent: list[Item], window: Window) -> bool:
        """Write what is to be sent, and what is on its way; delete what is to be deleted.

        Returns:
            False if nothing was written, because there is no disk at present.
        """
        if self._file is None or not (new or sent or self.gone):
            return False
        try:
            self._file.change([*sent, *new], self.gone)
        except StoreError as error:
            self._fail(error, window.keys())
            return False
        self._counts["written"] += len(sent) + len(new)
        self._counts["transactions"] += 1
        self._more.update(item.priority for item in new)
        self.gone, self.gone_since = set(), None
        window.stored(stored=True)
        self._bound(window.keys())
        return True

    def tidy(self, spare: Collection[int]) -> None:
        """Let what is too old go, now and then."""
        if self._file is None or self._clock() < self._age_at:
            return
        self._age_at = self._clock() + AGE_CHECK_S
        before = self._now() - self._settings.max_age_s
        try:
            self._evict(self._file.too_old(before, PLAUSIBLE_S, spare), "age")
        except StoreError as error:
            self._fail(error, spare)

    def pause(self) -> float:
        """Seconds until there is something to do; infinite if there is not."""
        if self._file is None:
            return self._retry_at - self._clock()
        return self._age_at - self._clock() if self._file.messages else float("inf")

    def counters(self) -> DiskCounters:
        """What happened since the start; from any thread."""
        file = self._file
        state = "none" if self._path is None else self._failure or "ok"
        return DiskCounters(
            state=state,
            messages=0 if file is None else file.messages,
            size_bytes=0 if file is None else file.size_bytes,
            written=self._counts["written"],
            transactions=self._counts["transactions"],
            failures=self._counts["failures"],
            damaged=self._counts["damaged"],
            dropped={cause: self._dropped[cause] for cause in ("age", "space", "damage")},
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _bound(self, spare: Collection[int]) -> None:
        file, settings = self._file, self._settings
        if file is None:
            return
        if file.messages <= settings.max_messages and file.size_bytes <= settings.max_bytes:
            return
        try:
            keys = file.surplus(settings.max_messages, settings.max_bytes, spare)
            self._evict(keys, "space")
        except StoreError as error:
            self._fail(error, spare)

    def _evict(self, keys: list[int], cause: str) -> None:
        if not keys or self._file is None:
            return
        self._file.change((), keys)
        self._dropped[cause] += len(keys)
        gone = set(keys)
        for priority in {key >> NUMBER_BITS for key in gone}:
            kept = [item for item in self._ahead[priority] if item.key not in gone]
            self._ahead[priority] = deque(kept)

    def _reset(self) -> None:
        """What is to be sent is looked for from the beginning."""
        self._ahead = {p: deque() for p in PRIORITIES}
        self._cursor = {p: first_key(p) - 1 for p in PRIORITIES}
        self._more = set()

    def _fail(self, error: StoreError, spare: Collection[int]) -> None:
        """Go on without the file: for a while, or until a fresh one is there."""
        self._counts["failures"] += 1
        lost = 0 if self._file is None else self._file.messages
        self.close()
        self._file = None
        self._reset()
        now = self._clock()
        first, self._failure = not self._failure, str(error)
        self._retry_at = now + RETRY_S
        if isinstance(error, DamagedError):
            self._condemned = error
            self._dropped["damage"] += max(0, lost - len(spare))
            if now - self._replaced_at >= RETRY_S:
                self._retry_at = now
                return
        if first:
            what = f"the spool cannot use its disk: {error}; what waits is kept in memory"
            self.tell("spool", "warning", what)

    def _replace(self, path: Path, error: DamagedError, window: Window) -> None:
        aside = set_aside(path)
        self._condemned = None
        self._replaced_at = self._clock()
        self._counts["damaged"] += 1
        window.stored(stored=False)
        self.gone, self.gone_since = set(), None
        what = f"the spool was damaged and begins anew: {error}; the old file is {aside}"
        self.tell("spool", "error", what)
