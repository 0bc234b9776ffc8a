"""The file of the spool: SQLite with a write-ahead log, used by one thread of one process.

A transaction is on the disk when `change` returns (`synchronous=FULL`): flash is spared by writing
seldom, not by hoping. A file that is damaged is set aside under another name, for whoever wants to
look at it; only the newest such file is kept.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from agent.errors import StoreError
from agent.spoolitem import OVERHEAD_BYTES, PRIORITIES, Item, first_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

FORMAT = 1
"""`user_version` of the file; another one is set aside, as it cannot be read."""

LOG_BYTES = 4 * 2**20
"""The write-ahead log is cut to this after a checkpoint."""

CHECKPOINT_PAGES = 1024
"""Pages of 4096 bytes in the write-ahead log before they go into the file: a page that changes
often in the meantime goes there once."""

LOG_PART = 4
"""On a small disk the log takes at most this part of the room that there is when the file is
opened: one that takes all of it could not be emptied any more, as the file must grow for that."""

PAGE_BYTES = 4096
LEAST_PAGES = 16

CREATE = """CREATE TABLE item (
    key INTEGER PRIMARY KEY, boot TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL,
    dropped INTEGER NOT NULL, replay INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL
) STRICT"""

COLUMNS = "key, boot, stream, seq, dropped, replay, at, body"


class DamagedError(StoreError):
    """What is on the disk is not what was written."""


class SpoolFile:
    """Items on the disk.

    Args:
        path: the file; made with mode 0600, its folder with 0700, where they are not there.

    Attributes:
        messages: how many items are in it.
        size_bytes: what they count for.

    Raises:
        DamagedError: set it aside (`set_aside`).
        StoreError: full, read-only, or another process has it; may be better later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.messages = 0
        self.size_bytes = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror or error}") from error
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise _mapped(path, error) from error
        except BaseException:
            self._db.close()
            raise

    def last(self, priority: int) -> int:
        """The greatest key of a priority; one less than its first if there is none.

        Raises:
            StoreError: as for the class.
        """
        low, high = first_key(priority), first_key(priority + 1)
        found = self._all("SELECT max(key) FROM item WHERE key >= ? AND key < ?", (low, high))
        greatest = found[0][0]
        return low - 1 if greatest is None else int(greatest)

    def read(self, priority: int, after: int, limit: int) -> list[Item]:
        """The next items of a priority, in order.

        Raises:
            StoreError: as for the class.
        """
        rows = self._all(
            f"SELECT {COLUMNS} FROM item WHERE key > ? AND key >= ? AND key < ? "  # noqa: S608
            "ORDER BY key LIMIT ?",
            (after, first_key(priority), first_key(priority + 1), limit),
        )
        return [Item(k, b, s, q, d, bool(r), at, body) for k, b, s, q, d, r, at, body in rows]

    def change(self, add: Iterable[Item], remove: Collection[int]) -> None:
        """Add and remove items; all of it, or nothing.

        Raises:
            StoreError: as for the class; nothing was changed.
        """
        rows = [(i.key, i.boot, i.stream, i.seq, i.dropped, i.replay, i.at, i.body) for i in add]
        try:
            try:
                self._change(rows, remove)
            except sqlite3.OperationalError as error:
                if "full" not in str(error) or not self._empty_log():
                    raise
                self._change(rows, remove)
        except sqlite3.Error as error:
            raise _mapped(self._path, error) from error

    def _change(self, rows: list[tuple[Any, ...]], remove: Collection[int]) -> None:
        messages = size = 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for key in (*remove, *(row[0] for row in rows)):
                gone = self._db.execute(
                    "DELETE FROM item WHERE key = ? RETURNING length(body)", (key,)
                ).fetchall()
                messages -= len(gone)
                size -= sum(length + OVERHEAD_BYTES for (length,) in gone)
            self._db.executemany(
                f"INSERT INTO item ({COLUMNS}) "  # noqa: S608 - constants
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._db.execute("COMMIT")
        except BaseException:
            # Some errors have rolled back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.messages += messages + len(rows)
        self.size_bytes += size + sum(len(row[7]) + OVERHEAD_BYTES for row in rows)

    def _empty_log(self) -> bool:
        """Make room: what is in the log goes into the file; False if that takes room too."""
        try:
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        return not busy

    def too_old(self, before: float, since: float, spare: Collection[int]) -> list[int]:
        """Keys of what was taken before a time; what was taken earlier than `since` is spared.

        Raises:
            StoreError: as for the class.
        """
        out = []
        for priority in PRIORITIES:
            for key, at, _ in self._oldest(priority):
                if at >= before:
                    # In the order in which they were taken: what follows is younger.
                    break
                if at >= since and key not in spare:
                    out.append(key)
        return out

    def surplus(self, messages: int, size_bytes: int, spare: Collection[int]) -> list[int]:
        """Keys of what is to go, so that at most so much is left.

        Raises:
            StoreError: as for the class.
        """
        out: list[int] = []
        count, size = self.messages - messages, self.size_bytes - size_bytes
        for priority in reversed(PRIORITIES):
            if count <= 0 and size <= 0:
                break
            for key, _, length in self._oldest(priority):
                if count <= 0 and size <= 0:
                    break
                if key not in spare:
                    out.append(key)
                    count -= 1
                    size -= length + OVERHEAD_BYTES
        return out

    def close(self) -> None:
        """Let go of it; never raises."""
        self._db.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        # Nothing secret is in it; zeroing what is deleted would be written too.
        self._db.execute("PRAGMA secure_delete=OFF")
        self._db.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
        disk = os.statvfs(self._path)
        room = disk.f_bavail * disk.f_frsize // PAGE_BYTES // LOG_PART
        pages = max(LEAST_PAGES, min(CHECKPOINT_PAGES, room))
        self._db.execute(f"PRAGMA wal_autocheckpoint={pages}")
        # Takes the lock: a second process is told here.
        self._db.execute("BEGIN EXCLUSIVE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.execute(CREATE)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        self._db.execute("COMMIT")
        if version not in (0, FORMAT):
            raise DamagedError(f"{self._path}: its format {version} is not known to this version")
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedError(f"{self._path}: {found}")
        self._count()

    def _count(self) -> None:
        count, size = self._all("SELECT count(*), coalesce(sum(length(body)), 0) FROM item", ())[0]
        self.messages = count
        self.size_bytes = size + self.messages * OVERHEAD_BYTES

    def _oldest(self, priority: int) -> Iterator[tuple[int, float, int]]:
        """Key, time and length of the items of a priority, in order."""
        try:
            yield from self._db.execute(
                "SELECT key, at, length(body) FROM item WHERE key >= ? AND key < ? ORDER BY key",
                (first_key(priority), first_key(priority + 1)),
            )
        except sqlite3.Error as error:
            raise _mapped(self._path, error) from error

    def _all(self, query: str, values: tuple[object, ...]) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _mapped(self._path, error) from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that a fresh one can be made.

    Returns:
        Where it is now.

    Raises:
        StoreError: it cannot be renamed.
    """
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
        # The log of a damaged file must not be taken for that of the fresh one.
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    return aside


def discard(path: Path) -> None:
    """Remove a file that holds nothing of use.

    Raises:
        StoreError: it cannot be removed.
    """
    try:
        # In this order: SQLite removes a log that it finds without a file.
        path.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error


def _mapped(path: Path, error: sqlite3.Error) -> StoreError:
    # SQLITE_CORRUPT and SQLITE_NOTADB are plain DatabaseErrors; full, locked, read-only and
    # unreadable disks are OperationalErrors, as are statements that do not fit the tables.
    if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
        return StoreError(f"{path}: {error}")
    return DamagedError(f"{path}: {error}")
