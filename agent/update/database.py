"""The file `state.db`: opened, checked, locked, changed in whole transactions.

A power cut leaves the last committed transaction (write-ahead log, `synchronous=FULL`). One process
writes; any may read. A file that is damaged, foreign, newer or gone is an error and stays as it is:
what it remembers protects against old models, so it is never begun anew by itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Any

from agent.errors import StoreError
from agent.update.schema import APPLICATION_ID, TABLES, VERSION
from engines.durable import sync_folder
from engines.filelock import acquire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE = "state.db"
LOCK = "state.lock"

LOCK_TIMEOUT_S = 5.0
"""An agent that is just being replaced has so long to end."""

BUSY_TIMEOUT_S = 5.0

MAX_PAGES = 16_384
"""64 MiB with the usual pages; what is kept is far below."""

WAL_LIMIT_BYTES = 4 * 2**20


class Database:
    """One open connection; from any thread.

    Args:
        folder: state folder, mode 0700.
        known: whether there must be a file already; else an absent one is made.

    Raises:
        StoreError: it cannot be opened, is damaged, newer, or another process writes.
    """

    def __init__(self, folder: Path, *, known: bool) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()
        _check_private(folder)
        self._holder: int | None = _take_lock(folder / LOCK)
        try:
            _make_file(self.path, known=known)
            self._connection = _connect(f"{self.path.absolute().as_uri()}?mode=rw")
            self._settle(known=known)
        except BaseException:
            self.close()
            raise

    def _settle(self, *, known: bool) -> None:
        with self._explained("open"):
            check(self._connection, self.path)
            mode = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise StoreError(
                    f"{self.path}: this file system cannot hold it safely (journal mode {mode}); "
                    "set updates.state_dir to a folder on a local disk"
                )
            for pragma in (
                "synchronous=FULL",
                f"journal_size_limit={WAL_LIMIT_BYTES}",
                f"max_page_count={MAX_PAGES}",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
        if not _tables(self._connection):
            if known:
                raise StoreError(_lost(self.path))
            self._create()

    def _create(self) -> None:
        with self.transaction() as connection:
            for table in TABLES:
                connection.execute(table)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")
        with self._explained("open"):
            sync_folder(self.path.parent)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, or nothing; may be nested, the outermost counts.

        Raises:
            StoreError: it could not be written; nothing has changed.
        """
        with self._lock, self._explained("write"):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has ended the transaction itself where the disk failed.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """What a query finds.

        Raises:
            StoreError: it cannot be read.
        """
        with self._lock, self._explained("read"):
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close it; what is committed stays."""
        with self._lock:
            connection = getattr(self, "_connection", None)
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            if self._holder is not None:
                os.close(self._holder)
                self._holder = None

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        with explained(self.path, what):
            yield


class ReadOnly:
    """A connection that only reads, beside a running agent or without one.

    Raises:
        StoreError: there is no state, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise StoreError(
                f"{self.path}: no state of updates is kept there; name the folder with --state, or "
                "the configuration with -c"
            )
        with explained(self.path, "read"):
            try:
                self._connection = self._open("mode=ro")
            except sqlite3.OperationalError:
                # On a disk that is mounted read-only, SQLite cannot make the files beside it; where
                # none are left over, it needs none.
                if self.path.with_name(f"{FILE}-wal").exists():
                    raise
                self._connection = self._open("mode=ro&immutable=1")

    def _open(self, options: str) -> sqlite3.Connection:
        connection = _connect(f"{self.path.absolute().as_uri()}?{options}")
        try:
            check(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """What a query finds.

        Raises:
            StoreError: it cannot be read.
        """
        with explained(self.path, "read"):
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close it."""
        self._connection.close()


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"{path}: cannot {what}: {error}; see to the disk (full, read-only, rights) and start "
            "the agent anew; until then no update is begun"
        ) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        # SQLite quotes names of a damaged schema in its messages, which then are no UTF-8.
        raise StoreError(_damaged(path, str(error))) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot {what}: {error.strerror or error}") from error


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Whether a file is whole, ours, and of a version that is known.

    Raises:
        StoreError: it is not.
        sqlite3.Error: it cannot be read.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StoreError(
            f"{path}: schema version {version} is of a newer agent, this one knows {VERSION}; "
            "install the newer agent again"
        )
    if _tables(connection):
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if version < 1 or owner != APPLICATION_ID:
            raise StoreError(f"{path}: this is no state of updates; move the file away")
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        raise StoreError(_damaged(path, str(problems[0])))


def _damaged(path: Path, why: str) -> str:
    # Older versions of sqlite3 give no text at all with some errors.
    first = why.partition("\n")[0] or "it cannot be read"
    return (
        f"{path}: damaged: {first}; the last active models go on serving and no "
        "update is taken; put back a copy of the state folder, or enrol the device anew"
    )


def _lost(path: Path) -> str:
    return (
        f"{path}: missing or empty, but fallback.json beside it says that there was one; what it "
        "remembered protects against old models: put back a copy of the state folder, or enrol "
        "the device anew and remove fallback.json"
    )


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
    )
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _make_file(path: Path, *, known: bool) -> None:
    with explained(path, "make"):
        if known and not path.exists():
            raise StoreError(_lost(path))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path, flags, 0o600))


def _check_private(folder: Path) -> None:
    """Whoever may put another file in its place may undo what it remembers."""
    with explained(folder, "look at it"):
        mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(
            f"{folder}: others than its owner may write there (mode {mode:04o}); chmod go-w it"
        )


def _take_lock(path: Path) -> int:
    with explained(path, "lock"):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            held = acquire(descriptor, LOCK_TIMEOUT_S)
        except BaseException:
            os.close(descriptor)
            raise
    if not held:
        os.close(descriptor)
        raise StoreError(
            f"{path}: another process of this agent works with this state folder; end it first"
        )
    return descriptor
