from __future__ import annotations

import os
import stat

import pytest

from agent.errors import StoreError
from agent.update.requests import MAX_BYTES, Request, ask, done, waiting
from tests.fakes.updates import digest_of


def request(slot="main", number=1):
    return Request(slot=slot, digest=digest_of(number), reason="worse", at=1_800_000_000)


def test_what_was_asked_is_found_once(tmp_path):
    assert waiting(tmp_path) == ()
    ask(tmp_path, request())
    ask(tmp_path, request("other"))
    found = waiting(tmp_path)
    assert [w.request for w in found] == [request(), request("other")]
    done(found[0])
    done(found[0])
    assert [w.request for w in waiting(tmp_path)] == [request("other")]


def test_a_newer_request_takes_the_place_of_the_older_one(tmp_path):
    ask(tmp_path, request(number=1))
    ask(tmp_path, request(number=2))
    (found,) = waiting(tmp_path)
    assert found.request == request(number=2)


def test_files_are_private(tmp_path):
    ask(tmp_path, request())
    (found,) = waiting(tmp_path)
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_asks_belongs_to_the_agents_user(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    ask(tmp_path, request())
    (found,) = waiting(tmp_path)
    assert found.path.stat().st_uid == found.path.parent.stat().st_uid == 12345


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100, b"\xff\x00", request().encode()[:-1], bytes(MAX_BYTES + 1)],
)
def test_garbage_is_found_as_what_is_to_be_removed(tmp_path, content):
    ask(tmp_path, request())
    (found,) = waiting(tmp_path)
    found.path.write_bytes(content)
    (found,) = waiting(tmp_path)
    assert found.request is None
    done(found)
    assert waiting(tmp_path) == ()


def test_a_request_in_another_slots_file_is_none(tmp_path):
    ask(tmp_path, request())
    (found,) = waiting(tmp_path)
    found.path.rename(found.path.with_name("other.json"))
    (found,) = waiting(tmp_path)
    assert found.request is None


def test_links_and_pipes_are_not_followed(tmp_path):
    ask(tmp_path, request())
    (found,) = waiting(tmp_path)
    os.mkfifo(found.path.with_name("pipe.json"))
    (tmp_path / "elsewhere").write_bytes(request("link").encode())
    found.path.with_name("link.json").symlink_to(tmp_path / "elsewhere")
    assert [w.request for w in waiting(tmp_path)] == [None, request(), None]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "requests").write_text("in the way")
    with pytest.raises(StoreError, match="cannot leave the request"):
        ask(tmp_path, request())
