from __future__ import annotations

import os
import stat

import pytest

from agent.errors import StoreError
from agent.update.staging import MAX_INDEX_BYTES, Staging
from tests.fakes.blocks import make_blocks
from tests.fakes.smalldisk import small_disk

DIGEST = "a" * 64
MIB = 2**20
SOURCE = make_blocks(10, 4096, last=100)


@pytest.fixture
def staging(tmp_path):
    return Staging(tmp_path / "bundles", DIGEST)


@pytest.fixture
def disk(tmp_path):
    yield from small_disk(tmp_path)


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def fill(staging, numbers=range(10)):
    with staging.blocks(SOURCE.index) as file:
        for number in numbers:
            file.keep([(number, SOURCE.blocks[number])])


def test_everything_lies_in_one_private_folder(staging, tmp_path):
    staging.put_manifest(b"{}")
    staging.put_index(b"VGIX")
    fill(staging)
    staging.sync()
    folder = tmp_path / "bundles" / DIGEST
    files = dict.fromkeys(("manifest.json", "index", "payload", "have"), 0o600)
    assert modes(folder) == files
    assert modes(folder.parent) == {DIGEST: 0o700}
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert staging.payload.read_bytes() == SOURCE.payload


def test_what_was_put_is_read_and_the_last_counts(staging):
    assert (staging.manifest(), staging.index()) == (None, None)
    for text in (b"old", b"new"):
        staging.put_manifest(text)
        staging.put_index(text * 2)
    assert (staging.manifest(), staging.index()) == (b"new", b"newnew")


def test_what_is_too_large_to_be_one_is_none(staging):
    staging.put_index(bytes(MAX_INDEX_BYTES + 1))
    staging.put_manifest(bytes(2**18 + 1))
    assert (staging.manifest(), staging.index()) == (None, None)


def test_a_part_that_a_crash_has_left_is_no_hindrance(staging, tmp_path):
    staging.put_manifest(b"old")
    (tmp_path / "bundles" / DIGEST / "manifest.json.part").write_bytes(b"ne")
    assert staging.manifest() == b"old"
    staging.put_manifest(b"new")
    assert staging.manifest() == b"new"


def test_room_is_taken_at_once_and_kept_content_stays(staging):
    staging.allocate(3 * MIB)
    assert staging.payload.stat().st_size == 3 * MIB
    assert staging.size() >= 3 * MIB
    with staging.payload.open("r+b") as file:
        file.write(b"content")
    staging.allocate(3 * MIB)
    assert staging.payload.read_bytes()[:7] == b"content"
    staging.allocate(MIB)
    assert staging.payload.stat().st_size == MIB


def test_without_room_nothing_is_begun(disk):
    staging = Staging(disk.folder / "bundles", DIGEST)
    with pytest.raises(StoreError, match="no room for 2 MiB of ciphertext"):
        staging.allocate(2 * MIB)
    assert not staging.payload.exists()
    staging.allocate(MIB // 2)
    with pytest.raises(StoreError, match="no room"):
        staging.allocate(2 * MIB)
    # What was there is not lost for it.
    assert staging.payload.stat().st_size >= MIB // 2


def test_a_disk_that_fills_up_is_told(disk):
    staging = Staging(disk.folder / "bundles", DIGEST)
    staging.allocate(SOURCE.index.ciphertext_length)
    (disk.folder / "other").write_bytes(bytes(900 * 1024))
    with pytest.raises(StoreError, match=r"manifest\.json cannot be written: No space left"):
        staging.put_manifest(bytes(200 * 1024))
    # The room for the payload was taken before.
    fill(staging)
    assert staging.payload.read_bytes() == SOURCE.payload


def test_a_read_only_disk_is_told_and_still_read(disk):
    staging = Staging(disk.folder / "bundles", DIGEST)
    staging.put_manifest(b"{}")
    fill(staging)
    disk.read_only()
    for refused in (
        lambda: staging.put_manifest(b"x"),
        lambda: staging.put_index(b"x"),
        lambda: staging.allocate(MIB),
        lambda: staging.blocks(SOURCE.index),
        staging.remove,
    ):
        with pytest.raises(StoreError, match="Read-only file system"):
            refused()
    assert staging.manifest() == b"{}"
    assert Staging(disk.folder / "bundles", "b" * 64).index() is None


@pytest.mark.parametrize("name", ["payload", "have"])
def test_a_link_is_not_written_through(staging, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "bundles" / DIGEST
    folder.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(StoreError):
        staging.blocks(SOURCE.index)
    assert victim.read_bytes() == b"precious"


def test_a_link_and_a_pipe_are_not_read(staging, tmp_path):
    folder = tmp_path / "bundles" / DIGEST
    folder.mkdir(parents=True)
    (folder / "manifest.json").symlink_to(tmp_path)
    os.mkfifo(folder / "index")
    for read in (staging.manifest, staging.index):
        with pytest.raises(StoreError):
            read()


def test_removing_leaves_the_others_and_may_be_done_again(staging, tmp_path):
    other = Staging(tmp_path / "bundles", "b" * 64)
    for each in (staging, other):
        each.put_manifest(b"{}")
        fill(each)
    staging.remove()
    staging.remove()
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["b" * 64]
    assert staging.size() == 0
    assert other.manifest() == b"{}"


def test_syncing_what_is_not_complete_yet_is_no_error(staging, tmp_path):
    staging.put_manifest(b"{}")
    staging.sync()
    with pytest.raises(StoreError):
        Staging(tmp_path / "nothing", DIGEST).sync()
