"""Tables of the state of updates (`state.db`), in words that SQLite 3.31 knows.

Counters go up to 2^64 - 1 and SQLite's integers do not, so they are texts of 20 digits, which
compare like numbers.
"""

from __future__ import annotations

VERSION = 1
"""`user_version` of the file; a larger one was written by a newer agent."""

APPLICATION_ID = 0x56494749
"""`application_id` of the file, "VIGI"."""

COUNTER_DIGITS = 20

_COUNTER = "TEXT NOT NULL CHECK (length({0}) = 20 AND {0} NOT GLOB '*[^0-9]*')"

_DIGEST = "digest TEXT NOT NULL CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*')"

_COUNTERS = {
    name: f"{name} {_COUNTER.format(name)}"
    for name in ("counter", "release_counter", "min_release_counter", "floor")
}

TABLES = (
    f"""CREATE TABLE records (
        slot TEXT PRIMARY KEY NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('OFFERED', 'TRUSTED', 'FETCHING', 'SEALED', 'BUILDING',
            'GATING', 'SHADOWING', 'CANARY', 'COMMITTED', 'REJECTED', 'ROLLED_BACK')),
        campaign TEXT NOT NULL,
        {_COUNTERS["counter"]},
        {_DIGEST},
        target TEXT NOT NULL,
        {_COUNTERS["release_counter"]},
        family TEXT NOT NULL,
        version TEXT NOT NULL,
        {_COUNTERS["min_release_counter"]},
        assignment BLOB NOT NULL,
        grant BLOB NOT NULL,
        attempt INTEGER NOT NULL CHECK (attempt >= 0),
        trials INTEGER NOT NULL CHECK (trials >= 0),
        canaries INTEGER NOT NULL CHECK (canaries >= 0),
        transitions INTEGER NOT NULL CHECK (transitions BETWEEN 0 AND 64),
        blame INTEGER NOT NULL CHECK (blame IN (0, 1)),
        reason TEXT NOT NULL,
        figures TEXT NOT NULL,
        started REAL NOT NULL,
        changed REAL NOT NULL)""",
    f"""CREATE TABLE installed (
        slot TEXT NOT NULL,
        place TEXT NOT NULL CHECK (place IN ('active', 'previous')),
        {_DIGEST},
        family TEXT NOT NULL,
        version TEXT NOT NULL,
        {_COUNTERS["release_counter"]},
        {_COUNTERS["min_release_counter"]},
        target TEXT NOT NULL,
        campaign TEXT NOT NULL,
        {_COUNTERS["counter"]},
        grant BLOB NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (slot, place))""",
    """CREATE TABLE ways_back (
        slot TEXT PRIMARY KEY NOT NULL)""",
    f"""CREATE TABLE floors (
        family TEXT PRIMARY KEY NOT NULL,
        {_COUNTERS["floor"]})""",
    f"""CREATE TABLE counters (
        slot TEXT PRIMARY KEY NOT NULL,
        {_COUNTERS["counter"]})""",
    f"""CREATE TABLE quarantine (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        {_DIGEST} UNIQUE,
        reason TEXT NOT NULL,
        at REAL NOT NULL)""",
    f"""CREATE TABLE history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        slot TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('COMMITTED', 'REJECTED', 'ROLLED_BACK')),
        campaign TEXT NOT NULL,
        {_COUNTERS["counter"]},
        {_DIGEST},
        family TEXT NOT NULL,
        version TEXT NOT NULL,
        {_COUNTERS["release_counter"]},
        attempt INTEGER NOT NULL,
        reason TEXT NOT NULL,
        figures TEXT NOT NULL,
        started REAL NOT NULL,
        changed REAL NOT NULL,
        UNIQUE (slot, counter, state))""",
    """CREATE TABLE reports (
        id INTEGER PRIMARY KEY NOT NULL REFERENCES history (id),
        envelope BLOB)""",
    """CREATE TABLE nonces (
        nonce TEXT PRIMARY KEY NOT NULL,
        expires REAL NOT NULL)""",
    """CREATE TABLE trust (
        name TEXT PRIMARY KEY NOT NULL,
        content BLOB NOT NULL)""",
    """CREATE TABLE settings (
        name TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL)""",
)
