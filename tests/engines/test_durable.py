"""Files that are wholly there or not at all."""

import errno
import os
import stat

import pytest

from engines.durable import replace_file


def test_a_file_is_replaced_and_its_user_alone_reads_it(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_interrupted_process_left_is_no_hindrance(tmp_path):
    (tmp_path / ".a.new").write_bytes(b"half")
    replace_file(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def refuse(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, refuse)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


def test_the_new_name_is_on_the_disk_too(tmp_path, monkeypatch):
    synced = []

    def note(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, (tmp_path / "a").exists()))

    monkeypatch.setattr("os.fsync", note)
    replace_file(tmp_path / "a", b"new")
    assert synced == [(False, False), (True, True)]
