"""Faults of the disk: each is an error that says what to do, and nothing is forgotten."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import StoreError
from agent.update import database, fallback
from agent.update.database import FILE, ReadOnly
from agent.update.machine import Failed, advance
from agent.update.reader import Reader
from agent.update.record import State
from agent.update.store import Store
from tests.fakes.updates import digest_of, drive, way


@pytest.fixture
def used(folder, clock):
    """A state folder in which one bundle is active and one was refused."""
    store = Store(folder, clock)
    drive(store, "main", way(1))
    drive(store, "main", (*way(2)[:6], Failed("bad")))
    store.close()
    return folder


@contextlib.contextmanager
def mounted(path, options):
    """A file system of its own in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_a_second_writer_is_refused(used, clock, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    store = Store(used, clock)
    with pytest.raises(StoreError, match="another process of this agent"):
        Store(used, clock)
    store.close()
    Store(used, clock).close()


@pytest.mark.parametrize("size", [100, 4096, 20_000])
def test_random_bytes_are_told_and_left_alone(used, clock, size):
    (used / FILE).write_bytes(random.Random(size).randbytes(size))
    before = contents(used)
    with pytest.raises(StoreError, match=r"state.db: damaged.*no update is taken"):
        Store(used, clock)
    assert contents(used) == before
    (active,) = fallback.read(used)
    assert active.digest == digest_of(1)


def test_every_torn_page_is_found_or_harmless(used, clock):
    whole = (used / FILE).read_bytes()
    assert len(whole) % 4096 == 0
    found = 0
    for page in range(len(whole) // 4096):
        torn = bytearray(whole)
        torn[page * 4096 : page * 4096 + 2048] = bytes(2048)
        (used / FILE).write_bytes(torn)
        try:
            store = Store(used, clock)
        except StoreError:
            found += 1
        else:
            # The page held nothing.
            assert store.floors() == {"line": 1}
            assert [p.state for p in store.history()] == [State.REJECTED, State.COMMITTED]
            store.close()
    assert found >= len(whole) // 4096 - 2


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_flipped_bits_end_in_one_kind_of_error(used, clock, data):
    whole = (used / FILE).read_bytes()
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 20))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        (used / FILE).write_bytes(broken)
        with contextlib.suppress(StoreError):
            store = Store(used, clock)
            try:
                store.records(), store.history(), store.floors(), store.active("main")
            finally:
                store.close()
    finally:
        (used / FILE).write_bytes(whole)
        for left in ("state.db-wal", "state.db-shm"):
            (used / left).unlink(missing_ok=True)


@pytest.mark.parametrize("word", [b"TABLE records", b"campaign TEXT", b"tablequarantine"])
@pytest.mark.parametrize("byte", [0xFF, 0xCE, 0x00])
def test_a_schema_that_is_no_text_any_more_is_damage(used, clock, word, byte):
    broken = bytearray((used / FILE).read_bytes())
    broken[broken.index(word) + 8] = byte
    (used / FILE).write_bytes(broken)
    with pytest.raises(StoreError, match=r"state\.db: (damaged|cannot)"):
        Store(used, clock)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"")])
def test_a_lost_state_is_never_begun_anew(used, clock, damage):
    damage(used / FILE)
    with pytest.raises(StoreError, match=r"missing or empty, but fallback\.json"):
        Store(used, clock)
    with pytest.raises(StoreError, match="missing or empty"):
        Store(used, clock)
    assert fallback.read(used)[0].digest == digest_of(1)


def test_a_state_that_was_never_used_is_missed_too(folder, clock):
    Store(folder, clock).close()
    (folder / FILE).unlink()
    with pytest.raises(StoreError, match="missing or empty"):
        Store(folder, clock)


def test_a_newer_state_is_left_to_the_newer_agent(used, clock):
    connection = sqlite3.connect(used / FILE)
    connection.execute("PRAGMA user_version=2")
    connection.close()
    (used / "state.db-wal").unlink(missing_ok=True)
    before = contents(used)
    for open_it in (lambda: Store(used, clock), lambda: ReadOnly(used)):
        with pytest.raises(StoreError, match=r"version 2 is of a newer agent, this one knows 1"):
            open_it()
    assert contents(used)[FILE] == before[FILE]


def test_another_programs_database_is_refused(folder, clock):
    folder.mkdir()
    connection = sqlite3.connect(folder / FILE)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    with pytest.raises(StoreError, match="no state of updates"):
        Store(folder, clock)


def test_a_link_in_the_place_of_the_state_is_refused(folder, clock, tmp_path):
    folder.mkdir()
    (folder / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot make"):
        Store(folder, clock)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_loses_no_step_that_was_saved(tmp_path, clock):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = Store(disk / "state", clock)
        drive(store, "main", way(1))
        record = drive(store, "main", way(2)[:-1])
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        # A write-ahead log that has grown already is written into without new room, so an outcome
        # may be saved even now; but at some time there must be no room for more.
        with pytest.raises(StoreError, match=r"cannot write: .*(full|I/O).*no update is begun"):
            store.trust.save({"root": bytes(500_000)})
        assert store.record("main") == record
        assert store.trust.load() == {}
        active = store.active("main")
        assert active is not None
        assert active.version == "1"
        store.close()
        filler.unlink()
        store = Store(disk / "state", clock)
        assert store.record("main") == record
        assert store.save(advance(record, way(2)[-1])).state is State.COMMITTED
        store.close()


def test_a_state_that_has_its_bound_takes_no_more(folder, clock, monkeypatch):
    monkeypatch.setattr(database, "MAX_PAGES", 40)
    store = Store(folder, clock)
    drive(store, "main", way(1))
    with pytest.raises(StoreError, match="full"):
        store.trust.save({"root": bytes(300_000)})
    assert store.record("main").state is State.COMMITTED
    drive(store, "main", way(2))
    store.close()


def test_a_disk_mounted_read_only_is_told_and_can_be_read(tmp_path, clock, used):
    with mounted(tmp_path / "disk", "size=4m") as disk:
        shutil.copytree(used, disk / "state")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match=r"[Rr]ead-only"):
            Store(disk / "state", clock)
        with contextlib.closing(ReadOnly(disk / "state")) as source:
            reader = Reader(source)
            assert reader.floors() == {"line": 1}
            assert reader.record("main").state is State.REJECTED
        assert fallback.read(disk / "state")[0].digest == digest_of(1)


@contextlib.contextmanager
def files_of_at_most(size):
    """Writes beyond so many bytes of a file fail, as on a disk that breaks."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [*range(0, 20_000, 1_111), 4096, 8192, 2**20])
def test_a_disk_that_fails_in_the_middle_of_a_step_leaves_it_undone(folder, clock, room):
    store = Store(folder, clock)
    drive(store, "main", way(1))
    record = drive(store, "main", way(2)[:-1])
    committed = advance(record, way(2)[-1])
    used = (folder / "state.db-wal").stat().st_size
    saved = None
    with files_of_at_most(used + room), contextlib.suppress(StoreError):
        saved = store.save(committed)
    assert (saved is not None) == (room > 40_000)
    assert store.record("main") == (saved or record)
    store.close()
    store = Store(folder, clock)
    assert store.record("main") == (saved or record)
    active = store.active("main")
    assert active is not None
    assert active.version == ("2" if saved else "1")
    assert store.floors() == {"line": 2 if saved else 1}
    assert len(store.history()) == len(store.unsigned_reports()) == (2 if saved else 1)
    assert store.save(committed).state is State.COMMITTED
    store.close()


def test_a_folder_that_others_may_write_to_is_refused(used, clock):
    used.chmod(0o770)
    with pytest.raises(StoreError, match=r"others than its owner may write.*0770.*chmod go-w"):
        Store(used, clock)
    used.chmod(0o750)
    Store(used, clock).close()


def test_nothing_is_read_where_nothing_is(tmp_path):
    with pytest.raises(StoreError, match="no state of updates is kept there; name the folder"):
        ReadOnly(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_steps_are_brought_down_to_the_disk(store):
    """2 is FULL: the log is synchronised at each commit."""
    assert store._database.rows("PRAGMA synchronous") == [(2,)]
    assert store._database.rows("PRAGMA journal_mode") == [("wal",)]


def test_reading_takes_no_lock_and_changes_nothing(used, clock):
    store = Store(used, clock)
    with contextlib.closing(ReadOnly(used)) as source:
        reader = Reader(source)
        assert reader.record("main").counter == 2
        drive(store, "main", way(3))
        assert reader.record("main").counter == 3
        with pytest.raises(StoreError, match="readonly"):
            source.rows("DELETE FROM floors")
    store.close()
