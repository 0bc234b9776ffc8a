from __future__ import annotations

import os
from pathlib import Path

from engines.cache import MAX_ENTRIES, BlobCache


def write(cache: BlobCache, key: str, content: bytes) -> None:
    with cache.write(key) as place:
        assert place is not None
        place.write_bytes(content)


def test_what_was_written_is_found_private_and_whole(tmp_path: Path):
    cache = BlobCache(tmp_path / "cache")
    key = cache.key(b"model", b"options")
    assert cache.find(key) is None
    write(cache, key, b"content")
    found = cache.find(key)
    assert found is not None
    assert found.read_bytes() == b"content"
    assert found.stat().st_mode & 0o777 == 0o600
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_the_key_tells_where_one_part_ends_and_the_next_begins():
    assert BlobCache.key(b"ab", b"c") != BlobCache.key(b"a", b"bc")


def test_a_flipped_bit_or_a_torn_file_is_removed_not_used(tmp_path: Path):
    cache = BlobCache(tmp_path)
    for damage in (b"xontent", b"cont"):
        write(cache, "k", b"content")
        (path,) = tmp_path.glob("*.bin")
        path.write_bytes(damage)
        assert cache.find("k") is None
        assert list(tmp_path.glob("*.bin")) == []


def test_nothing_enters_the_cache_if_writing_fails(tmp_path: Path):
    cache = BlobCache(tmp_path)
    try:
        with cache.write("k") as place:
            assert place is not None
            place.write_bytes(b"half")
            raise KeyError
    except KeyError:
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_goes_first(tmp_path: Path):
    cache = BlobCache(tmp_path)
    for number in range(MAX_ENTRIES):
        write(cache, f"k{number}", b"x")
        (path,) = tmp_path.glob(f"k{number}-*.bin")
        os.utime(path, (number, number))
    assert cache.find("k0") is not None
    write(cache, "new", b"x")
    assert cache.find("k0") is not None
    assert cache.find("k1") is None


def test_an_unusable_folder_is_no_reason_to_stop(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = BlobCache(blocked)
    assert cache.find("k") is None
    with cache.write("k") as place:
        assert place is None
