"""What the spool has on its disk, and what happens when the disk fails; used by one thread.

No error leaves this module: a failure is told and counted, and tried again later. A disk that is
full or read-only can still be read: what is on it goes on being sent, before what is newer.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.errors import StoreError
from agent.spoolfile import DamagedError, SpoolFile, discard, set_aside
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
"""A file that cannot be opened or read is tried again after this."""

WRITE_RETRY_S = 5.0
"""A disk that could not be written is tried again after this: it may be full for a moment only."""

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
        # When a change is worth a try again; in the past for ever while all is well.
        self._write_at = -float("inf")
        self._reopened = False
        self._counts: Counter[str] = Counter()
        self._ahead: dict[int, deque[Item]] = {}
        self._cursor: dict[int, int] = {}
        self._more: set[int] = set()
        self._dropped: Counter[str] = Counter()
        self._reset()

    @property
    def write_at(self) -> float:
        """From when on a change is worth a try, by the monotonic clock; infinite without a file."""
        return float("inf") if self._file is None else self._write_at

    @property
    def all_sent(self) -> bool:
        """True if nothing on the disk is still to be sent."""
        return not self._more and not any(self._ahead.values())

    def open(self, window: Window) -> bool:
        """Open the file if that is to be tried.

        Returns:
            True if it is open now and was not.
        """
        if self._path is None or self._clock() < self._open_at():
            return False
        spent = self._file is not None and self._file.messages <= len(self.gone)
        self.close()
        self._file = None
        try:
            if spent:
                # A disk may be full of this very file, or of its log: nothing on it is needed.
                discard(self._path)
                self.gone, self.gone_since = set(), None
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
        self._reopened = True
        if self._write_at == -float("inf"):
            self._well()
        return True

    def next(self, priority: int, spare: Collection[int]) -> Item | None:
        """The next item of a priority that is to be sent, which stays; None if there is none."""
        while not self._ahead[priority] and priority in self._more and self._file is not None:
            try:
                rows = self._file.read(priority, self._cursor[priority], READ_AHEAD)
            except StoreError as error:
                self._fail(error, spare)
                return None
            if len(rows) < READ_AHEAD:
                self._more.discard(priority)
            if rows:
                self._cursor[priority] = rows[-1].key
            # Those on their way, and those to be deleted, are not sent from here.
            left = (i for i in rows if i.key not in spare and i.key not in self.gone)
            self._ahead[priority].extend(left)
        return self._ahead[priority][0] if self._ahead[priority] else None

    def sent(self, item: Item) -> None:
        """The item that `next` gave was handed over."""
        self._ahead[item.priority].popleft()

    def remove(self, keys: Iterable[int]) -> None:
        """These are to be deleted at the next change."""
        self.gone.update(keys)
        if self.gone and self.gone_since is None:
            self.gone_since = self._clock()

    def change(self, new: list[Item], sent: list[Item], window: Window) -> bool:
        """Write what is to be sent, and what is on its way; delete what is to be deleted.

        Returns:
            False if nothing was written, because no disk can be written at present.
        """
        if not (new or sent or self.gone):
            return False
        if not self._write([*sent, *new], self.gone, window.keys()):
            return False
        self._counts["written"] += len(sent) + len(new)
        self._counts["transactions"] += 1
        self._more.update(item.priority for item in new)
        self.gone, self.gone_since = set(), None
        window.stored(stored=True)
        if self._failure:
            self._well()
        self._bound(window.keys())
        return True

    def tidy(self, spare: Collection[int]) -> None:
        """Let what is too old go, now and then."""
        if self._file is None or self._clock() < max(self._age_at, self._write_at):
            return
        self._age_at = self._clock() + AGE_CHECK_S
        before = self._now() - self._settings.max_age_s
        try:
            keys = self._file.too_old(before, PLAUSIBLE_S, {*spare, *self.gone})
        except StoreError as error:
            self._fail(error, spare)
            return
        self._evict(keys, "age", spare)

    def pause(self) -> float:
        """Seconds until there is something to do; infinite if there is not."""
        age_at = float("inf")
        if self._file is not None and self._file.messages:
            age_at = max(self._age_at, self._write_at)
        return min(age_at, self._open_at()) - self._clock()

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
        except StoreError as error:
            self._fail(error, spare)
            return
        self._evict(keys, "space", spare)

    def _evict(self, keys: list[int], cause: str, spare: Collection[int]) -> None:
        if not keys or not self._write([], keys, spare):
            return
        self._dropped[cause] += len(keys)
        gone = set(keys)
        for priority in {key >> NUMBER_BITS for key in gone}:
            kept = [item for item in self._ahead[priority] if item.key not in gone]
            self._ahead[priority] = deque(kept)

    def _write(self, add: list[Item], remove: Collection[int], spare: Collection[int]) -> bool:
        """Change the file; False if that failed, or if there is none."""
        if self._file is None:
            return False
        try:
            self._file.change(add, remove)
        except DamagedError as error:
            self._fail(error, spare)
            return False
        except StoreError as error:
            # What is on it can still be read, and goes out before anything newer.
            self._counts["failures"] += 1
            self._write_at = self._clock() + WRITE_RETRY_S
            self._reopened = False
            self._blame(error)
            return False
        return True

    def _open_at(self) -> float:
        """When the file is to be opened, by the monotonic clock."""
        if self._file is None:
            return self._retry_at
        # A disk that was taken away and put back is found again only by opening the file anew. That
        # may fail, so nothing that is still to be sent may be on it.
        stuck = self._write_at > -float("inf") and not self._reopened and self.all_sent
        return self._write_at if stuck else float("inf")

    def _well(self) -> None:
        """Opened again, or written again."""
        self._write_at = -float("inf")
        if self._failure:
            self._failure = ""
            self.tell("spool", "info", "the spool is on its disk again")

    def _blame(self, error: StoreError) -> None:
        first, self._failure = not self._failure, str(error)
        if first:
            what = f"the spool cannot use its disk: {error}; what is new is kept in memory"
            self.tell("spool", "warning", what)

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
        self._write_at = -float("inf")
        now = self._clock()
        self._retry_at = now + RETRY_S
        if isinstance(error, DamagedError):
            self._condemned = error
            self._dropped["damage"] += max(0, lost - len(spare))
            if now - self._replaced_at >= RETRY_S:
                # A fresh file may do at once; that tells of the damage.
                self._failure, self._retry_at = self._failure or str(error), now
                return
        self._blame(error)

    def _replace(self, path: Path, error: DamagedError, window: Window) -> None:
        aside = set_aside(path)
        self._condemned = None
        self._replaced_at = self._clock()
        self._counts["damaged"] += 1
        window.stored(stored=False)
        self.gone, self.gone_since = set(), None
        what = f"the spool was damaged and begins anew: {error}; the old file is {aside}"
        self.tell("spool", "error", what)
