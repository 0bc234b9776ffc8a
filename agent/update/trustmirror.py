"""The signed metadata that this device has accepted, and the time below which no clock is believed.

python-tuf renames files without bringing them down to the disk; here they are rows, and a refresh
is one transaction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agent.bundle.strict import MAX_WALL_S
from agent.errors import StoreError
from agent.update.failpoints import hit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.update.database import Database

MAX_FILES = 1_100
"""python-tuf follows at most 1,024 new root versions; the other roles have one file each."""

MAX_BYTES = 4 * 2**20

_FLOOR = "time_floor"


class TrustMirror:
    """`agent.bundle.trust.TrustStore` in the state of updates.

    Args:
        database: open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> dict[str, bytes]:
        """The files that were saved last, by name.

        Raises:
            StoreError: they cannot be read.
        """
        return dict(self._database.rows("SELECT name, content FROM trust"))

    def save(self, files: Mapping[str, bytes]) -> None:
        """Put these files in the place of all others, in one transaction.

        Raises:
            StoreError: they are too many or cannot be written; the old ones stay.
        """
        size = sum(len(content) for content in files.values())
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise StoreError(
                f"signed metadata: {len(files)} files of {size} bytes are more than the "
                f"{MAX_FILES} files and {MAX_BYTES} bytes that are kept"
            )
        hit("C0.refreshed")
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM trust")
            hit("C0.saving")
            connection.executemany("INSERT INTO trust VALUES (?, ?)", files.items())
        hit("C0.saved")

    def time_floor(self) -> float:
        """Seconds since the epoch; the clock is wrong if it says less. 0 if nothing is known.

        Raises:
            StoreError: it cannot be read.
        """
        rows = self._database.rows("SELECT value FROM settings WHERE name = ?", (_FLOOR,))
        return float(rows[0][0]) if rows else 0.0

    def raise_time_floor(self, t: float) -> None:
        """Raise it to `t`; a smaller value changes nothing.

        It never falls again, so it must come from something signed, never from this device's
        clock: one jump of that into the future would end all updates.

        Raises:
            StoreError: it cannot be written.
        """
        if not math.isfinite(t):
            return
        t = min(t, float(MAX_WALL_S))
        with self._database.transaction() as connection:
            if t > self.time_floor():
                connection.execute(
                    "INSERT INTO settings VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (_FLOOR, repr(t)),
                )
