from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import seal
from engines.errors import PlanError
from engines.seal import HEADER, KEY_BYTES, OVERHEAD_BYTES, FileKey, Sealer, SealKeyError

NOBODY = 65534


class FixedKey:
    def __init__(self, key: bytes = bytes(range(KEY_BYTES))) -> None:
        self._key = key

    def key(self) -> bytes:
        return self._key


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_sealed_opens_and_does_not_show(content, aad):
    sealer = Sealer(FixedKey())
    sealed = sealer.seal(content, aad)
    assert sealer.open(sealed, aad) == content
    assert len(sealed) == len(content) + OVERHEAD_BYTES
    if len(content) > 8:
        assert content not in sealed[len(HEADER) :]


def test_the_same_content_is_sealed_differently_each_time():
    sealer = Sealer(FixedKey())
    assert len({sealer.seal(b"content", b"") for _ in range(100)}) == 100


@settings(deadline=None)
@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_any_cut_and_any_addition_is_found(content, data):
    sealer = Sealer(FixedKey())
    sealed = bytearray(sealer.seal(content, b"for"))
    how = data.draw(st.sampled_from(["flip", "cut", "add"]))
    place = data.draw(st.integers(0, len(sealed) - 1))
    if how == "flip":
        sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del sealed[place:]
    else:
        sealed[place:place] = data.draw(st.binary(min_size=1, max_size=3))
    with pytest.raises(PlanError):
        sealer.open(bytes(sealed), b"for")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_raises_one_error(garbage):
    for content in (garbage, HEADER + garbage):
        with pytest.raises(PlanError):
            Sealer(FixedKey()).open(content, b"")


def test_another_purpose_or_another_key_does_not_open_it():
    sealed = Sealer(FixedKey()).seal(b"content", b"one")
    with pytest.raises(PlanError, match="altered"):
        Sealer(FixedKey()).open(sealed, b"other")
    with pytest.raises(PlanError, match="another key"):
        Sealer(FixedKey(b"x" * KEY_BYTES)).open(sealed, b"one")


def test_more_than_the_cipher_takes_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(seal, "MAX_CONTENT_BYTES", 10)
    sealer = Sealer(FixedKey())
    assert sealer.open(sealer.seal(b"x" * 10, b""), b"") == b"x" * 10
    with pytest.raises(PlanError, match="11 bytes are too many"):
        sealer.seal(b"x" * 11, b"")
    with pytest.raises(PlanError, match="larger than anything"):
        sealer.open(HEADER + b"x" * 100, b"")


def test_a_provider_that_gives_no_proper_key_is_found_out():
    with pytest.raises(SealKeyError, match="5 bytes, not 32"):
        Sealer(FixedKey(b"short")).seal(b"", b"")


def test_the_key_is_made_once_private_in_a_private_folder(tmp_path: Path):
    path = tmp_path / "state" / "keys" / "device.key"
    key = FileKey(path).key()
    assert len(key) == KEY_BYTES
    assert FileKey(path).key() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["device.key"]


def test_the_key_is_private_even_under_a_careless_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        FileKey(tmp_path / "device.key").key()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600


def test_threads_that_make_the_key_at_once_get_the_same_one(tmp_path: Path):
    for attempt in range(10):
        path = tmp_path / str(attempt) / "device.key"
        with ThreadPoolExecutor(8) as pool:
            keys = set(pool.map(lambda _, path=path: FileKey(path).key(), range(8)))
        assert len(keys) == 1


def test_what_a_kill_left_of_a_key_is_replaced(tmp_path: Path):
    (tmp_path / ".device.key.new").write_bytes(b"half a k")
    key = FileKey(tmp_path / "device.key").key()
    assert len(key) == KEY_BYTES
    assert [p.name for p in tmp_path.iterdir()] == ["device.key"]


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o666])
def test_a_key_that_others_can_read_or_write_is_refused_with_the_remedy(tmp_path: Path, mode):
    path = tmp_path / "device.key"
    FileKey(path).key()
    path.chmod(mode)
    with pytest.raises(SealKeyError, match=f"chmod 600 {path}"):
        FileKey(path).key()


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (KEY_BYTES + 1)])
def test_a_damaged_key_is_refused_and_not_replaced_by_itself(tmp_path: Path, content):
    path = tmp_path / "device.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SealKeyError, match="remove it"):
        FileKey(path).key()
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_key_that_is_no_ordinary_file_is_refused_at_once(tmp_path: Path, kind):
    path = tmp_path / "device.key"
    if kind == "link":
        FileKey(tmp_path / "real").key()
        path.symlink_to(tmp_path / "real")
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir()
    with pytest.raises(SealKeyError, match="cannot be read"):
        FileKey(path).key()


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SealKeyError, match=r"file/device\.key cannot be read or made"):
        FileKey(tmp_path / "file" / "device.key").key()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of somebody else")
def test_a_key_of_another_user_is_refused(tmp_path: Path):
    path = tmp_path / "device.key"
    FileKey(path).key()
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(SealKeyError, match=f"belongs to user {NOBODY}"):
        FileKey(path).key()


def test_processes_that_make_the_key_at_once_get_the_same_one(tmp_path: Path):
    code = (
        "import sys, pathlib; from engines.seal import FileKey; sys.stdin.read(1);"
        f"print(FileKey(pathlib.Path({str(tmp_path / 'device.key')!r})).key().hex())"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for child in children:
        child.stdin.write("g")
        child.stdin.flush()
    keys = {child.communicate(timeout=30)[0].strip() for child in children}
    assert len(keys) == 1
    assert len(keys.pop()) == 2 * KEY_BYTES
