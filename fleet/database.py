"""The controller's database: SQLite in the fleet folder, or another by its URL.

    with database.session() as session:     # one transaction: whole, or not at all
        device = session.get(Device, "line-1")

Rows stay readable after their session.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.orm import sessionmaker as make_sessions

from agent.errors import StoreError
from fleet.tables import (
    MAX_COUNTER,
    Assignment,
    Base,
    Bundle,
    Campaign,
    Device,
    Group,
    Membership,
    Operator,
    RevokedCertificate,
    Setting,
    StoredReport,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

__all__ = [
    "CONTROLLER_SERIAL",
    "MAX_COUNTER",
    "OFFLINE_KEYS",
    "Assignment",
    "Bundle",
    "Campaign",
    "Database",
    "Device",
    "Group",
    "Membership",
    "Operator",
    "RevokedCertificate",
    "Setting",
    "StoredReport",
    "next_counter",
    "read_setting",
    "write_setting",
]

SCHEMA_VERSION = 1

CONTROLLER_SERIAL = "controller.serial"
"""Setting: serial number of the controller's present certificate, hexadecimal."""

OFFLINE_KEYS = "offline.keys"
"""Setting: key id of each root and release key by name, wherever its file lies now."""

BUSY_TIMEOUT_S = 30.0
"""How long a command waits for another's transaction."""

READ_ONLY = "vigia_read_only"


class Database:
    """The controller's database.

    Args:
        url: as SQLAlchemy writes them, e.g. "sqlite:////srv/fleet/fleet.db" or
            "postgresql+psycopg://fleet@db/fleet" (the driver has to be installed).

    Raises:
        StoreError: the URL names no database that could be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self._file = (
                Path(parsed.database)
                if parsed.get_backend_name() == "sqlite" and parsed.database
                else None
            )
            options: dict[str, Any] = (
                {"timeout": BUSY_TIMEOUT_S} if parsed.get_backend_name() == "sqlite" else {}
            )
            self._engine = create_engine(parsed, connect_args=options)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise StoreError(
                f"the database URL of the fleet cannot be used: {type(error).__name__}; "
                "see https://docs.sqlalchemy.org/core/engines.html, and install its driver"
            ) from None
        if parsed.get_backend_name() == "sqlite":
            _prepare_sqlite(self._engine)
        self._sessions = make_sessions(self._engine, expire_on_commit=False)

    def create(self) -> None:
        """Make the tables.

        Raises:
            StoreError: they are there already, or cannot be made.
        """
        try:
            if self._file is not None:
                # So that nobody else may read it, from its first moment on.
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(self._file, flags, 0o600))
            Base.metadata.create_all(self._engine, checkfirst=False)
        except (OSError, SQLAlchemyError) as error:
            raise _unusable(error) from None
        with self.session() as session:
            write_setting(session, "schema", SCHEMA_VERSION)

    def check(self) -> None:
        """See that it is a database of this version.

        Raises:
            StoreError: it is not.
        """
        if self._file is not None and not self._file.is_file():
            raise StoreError(
                f"the fleet's database {self._file} is missing; bring it back from a backup"
            )
        with self.reading() as session:
            found = read_setting(session, "schema", None)
        if found != SCHEMA_VERSION:
            raise StoreError(
                f"the fleet's database has schema {found}, this program {SCHEMA_VERSION}; "
                "use the version of Vigia that wrote it"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction that may write; it is kept at the end, or undone by an error.

        Raises:
            StoreError: the database refuses.
        """
        with self._open(read_only=False) as session:
            yield session

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """One look at the database, that keeps nobody waiting.

        Raises:
            StoreError: the database refuses.
        """
        with self._open(read_only=True) as session:
            yield session

    @contextlib.contextmanager
    def _open(self, *, read_only: bool) -> Iterator[Session]:
        try:
            with self._sessions() as session:
                session.connection(execution_options={READ_ONLY: read_only})
                yield session
                # Closing alone undoes what was written, and leaves the rows readable.
                if not read_only:
                    session.commit()
        except SQLAlchemyError as error:
            raise _unusable(error) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


def next_counter(session: Session, device: str) -> int:
    """Count the device's assignments up by one, within the caller's transaction.

    Raises:
        StoreError: no such device, or no counter is left.
    """
    row = session.get(Device, device, with_for_update=True)
    if row is None:
        raise StoreError(f"there is no device {device!r} in this fleet")
    if row.counter >= MAX_COUNTER:
        raise StoreError(f"device {device!r} has used up its counters; enrol it by another id")
    row.counter += 1
    return row.counter


def read_setting(session: Session, key: str, default: Any) -> Any:
    """A value of the controller's own; `default` if it was never written."""
    row = session.get(Setting, key)
    return default if row is None else json.loads(row.value)


def write_setting(session: Session, key: str, value: Any) -> None:
    """Keep a JSON value under `key`."""
    session.merge(Setting(key=key, value=json.dumps(value)))


def _prepare_sqlite(engine: Engine) -> None:
    """Durable at each commit, foreign keys obeyed, and a writer announces itself at its begin.

    The driver's own transactions begin at the first write, which then may fail because another
    wrote meanwhile; see "Serializable isolation" of SQLAlchemy's pages on pysqlite.
    """

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        reads = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _unusable(error: Exception) -> StoreError:
    # SQLAlchemy's own text repeats the statement with its values.
    cause = getattr(error, "orig", None) or error
    return StoreError(f"the fleet's database cannot be used: {cause}")
