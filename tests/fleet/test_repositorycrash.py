"""The controller is killed between any two changes on its disk."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from agent.bundle.trust import Trust
from agent.errors import SignatureError
from fleet import metadatafolder
from tests.fakes.tufhouse import House, key_set, manifest
from tests.fakes.tufrepository import NOW, MemoryStore, key


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


class Killer:
    """Ends the program before the change number `at`; half of a file may have been written."""

    def __init__(self, monkeypatch, at: int) -> None:
        self._left = at
        self._write = metadatafolder.write_new
        self._rename, self._unlink = Path.rename, Path.unlink
        monkeypatch.setattr(metadatafolder, "write_new", self._write_new)
        monkeypatch.setattr(Path, "rename", self._wrap(Path.rename))
        monkeypatch.setattr(Path, "unlink", self._wrap(Path.unlink))

    @property
    def killed(self) -> bool:
        return self._left < 0

    def _step(self) -> bool:
        self._left -= 1
        return self._left < 0

    def _write_new(self, path, content):
        if self._step():
            path.write_bytes(content[: len(content) // 2])
            raise Killed
        self._write(path, content)

    def _wrap(self, function):
        def changed(path, *args, **kwargs):
            if self._step():
                raise Killed
            return function(path, *args, **kwargs)

        return changed


def release(house):
    """A bundle and new keys all around: staged, signed, completed, published.

    After it was killed, an operator does it again: what is done already is passed over.
    """
    repository = house.opened()
    house.snapshot, house.timestamp = key("snapshot 2"), key("timestamp 2")
    house.release[1] = key("release 2")
    if not repository.has_target(manifest()):
        repository.stage_target(manifest())
        repository.rotate_root(
            release=key_set(house.release, 2),
            snapshot=key_set([house.snapshot]),
            timestamp=key_set([house.timestamp]),
        )
    if repository.pending():
        house.sign(repository.pending())
        repository.complete()
    repository.publish_online(house.online)


@pytest.mark.slow
def test_a_change_that_was_killed_anywhere_is_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "first").mkdir()
    before = House(tmp_path / "first").found().repository.message()
    target = "models/line/1/manifest.json"
    kills = 0
    for at in range(200):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "first", folder)
        house = House(folder)
        anchor = house.repository.anchor()
        with monkeypatch.context() as patch:
            killer = Killer(patch, at)
            with contextlib.suppress(Killed):
                release(house)
        # Whatever was reached, a device can be shown what the folder says is published.
        message = house.opened().message()
        device = Trust(anchor, MemoryStore(), lambda: NOW)
        device.refresh(message)
        if message == before:
            with pytest.raises(SignatureError):
                device.target(target)
        else:
            assert device.target(target).release_counter == 1
        # And doing it again brings it to its end, without a trace of the first time.
        release(House(folder))
        device.refresh(House(folder).opened().message())
        assert device.target(target).release_counter == 1
        assert list((house.folder / "pending").iterdir()) == []
        assert not [path for path in house.folder.rglob(".*") if path.is_file()]
        shutil.rmtree(folder)
        if not killer.killed:
            break
        kills += 1
    assert kills > 20
