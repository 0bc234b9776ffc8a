"""Folders in memory: verified to be so, private, bounded, and gone with their process."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.update import memoryfolder
from agent.update.memoryfolder import SPARE_BYTES, MemoryFolder, default_places

SHM = Path("/dev/shm")
DIGEST = "ab" * 32


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder whose file system is said to be a tmpfs."""
    found = tmp_path / "run"
    found.mkdir()
    mounted(monkeypatch, tmp_path, found, "tmpfs")
    return found


def mounted(monkeypatch, folder: Path, on: Path, kind: str) -> None:
    device = on.stat().st_dev
    mounts = folder / "mountinfo"
    mounts.write_text(
        f"25 1 {os.major(device)}:{os.minor(device)} / /x rw,relatime shared:1 - {kind} x rw\n"
    )
    monkeypatch.setattr(memoryfolder, "MOUNTS", mounts)


@pytest.fixture
def memory(place):
    found = MemoryFolder([place])
    yield found
    found.close()


def test_on_this_machine_there_is_a_folder_in_memory_and_it_is_a_tmpfs():
    memory = MemoryFolder()
    try:
        folder = memory.make(DIGEST, 1000)
        kind = subprocess.run(
            ["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True
        )
        assert kind.stdout.strip() == "tmpfs"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.parent.stat().st_mode) == 0o700
    finally:
        memory.close()
    assert not folder.parent.exists()


@pytest.mark.parametrize("kind", ["ext4", "overlay", "btrfs", "tmpfsish"])
def test_a_place_on_a_disk_is_refused(tmp_path, monkeypatch, kind):
    mounted(monkeypatch, tmp_path, tmp_path, kind)
    with pytest.raises(StoreError, match=r"no folder in memory.*no tmpfs.*RuntimeDirectory="):
        MemoryFolder([tmp_path])
    assert [p.name for p in tmp_path.iterdir()] == ["mountinfo"]


def test_a_place_that_is_not_mounted_anywhere_known_is_refused(tmp_path, monkeypatch):
    empty = tmp_path / "mountinfo"
    empty.write_text("")
    monkeypatch.setattr(memoryfolder, "MOUNTS", empty)
    with pytest.raises(StoreError, match="no tmpfs"):
        MemoryFolder([tmp_path])


def test_the_first_usable_place_is_taken(place, tmp_path):
    missing = tmp_path / "missing"
    memory = MemoryFolder([missing, place])
    assert place in memory.make(DIGEST, 1).parents
    memory.close()


def test_the_places_are_those_of_systemd_then_of_the_user_then_of_the_system(monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/vigia:/run/other")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert [str(p) for p in default_places()] == [
        "/run/vigia",
        "/run/other",
        "/run/user/7",
        "/dev/shm",
    ]
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_places() == (SHM,)


def test_a_folder_is_made_empty_however_often(memory):
    folder = memory.make(DIGEST, 10)
    (folder / "model.onnx").write_text("old")
    again = memory.make(DIGEST, 10)
    assert again == folder
    assert list(again.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "work", ".hidden", "a" * 200])
def test_names_that_lead_elsewhere_are_refused(memory, name):
    with pytest.raises(StoreError, match="is no name"):
        memory.make(name, 1)


def test_what_does_not_fit_is_refused_before_anything_is_written(place):
    free = SPARE_BYTES + 5_000_000
    memory = MemoryFolder([place], max_bytes=2**60, available=lambda: free)
    with pytest.raises(StoreError, match=r"5 MB are to be opened in memory, but only 4 MB"):
        memory.make(DIGEST, 6_000_000)
    assert list(memory.work.parent.iterdir()) == [memory.work]
    assert memory.make(DIGEST, 5_000_000).is_dir()
    memory.close()


def test_more_than_is_allowed_is_refused(place):
    memory = MemoryFolder([place], max_bytes=100)
    with pytest.raises(StoreError, match="101 bytes are more than the 100 allowed"):
        memory.make(DIGEST, 101)
    memory.make(DIGEST, 100)
    memory.close()


def test_a_full_place_is_passed_over_for_one_with_room(place, tmp_path, monkeypatch):
    second = tmp_path / "second"
    second.mkdir()
    real = os.statvfs
    memory = MemoryFolder([place, second], max_bytes=2**60, available=lambda: 2**60)
    first_device = memory._homes[0]._descriptor

    def small(of):
        found = real(of)
        if of == first_device:
            return os.statvfs_result((*found[:2], *(0,) * 3, *found[5:]))
        return found

    monkeypatch.setattr(os, "statvfs", small)
    assert second in memory.make(DIGEST, 1000).parents
    memory.close()


def test_only_what_is_to_be_kept_is_kept(memory):
    names = [digit * 64 for digit in "abc"]
    for name in names:
        (memory.make(name, 1) / "f").write_text("x")
    (memory.work / "left").write_text("x")
    memory.keep_only({names[1]})
    assert [p.name for p in memory.work.parent.iterdir() if p.name != "work"] == [names[1]]
    assert list(memory.work.iterdir()) == []
    memory.remove(names[1])
    memory.remove(names[1])
    assert [p.name for p in memory.work.parent.iterdir()] == ["work"]


HOLDS = """
import sys, time
from pathlib import Path
from agent.update import memoryfolder
memoryfolder.MOUNTS = Path(sys.argv[2])
memory = memoryfolder.MemoryFolder([Path(sys.argv[1])])
print(memory.make("ab" * 32, 1), flush=True)
time.sleep(600)
"""


def holder(place: Path) -> tuple[subprocess.Popen, Path]:
    command = [sys.executable, "-c", HOLDS, str(place), str(memoryfolder.MOUNTS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_has_left_is_removed_and_what_a_living_one_has_is_not(place):
    dead, dead_folder = holder(place)
    alive, folder = holder(place)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        assert dead_folder.is_dir()
        memory = MemoryFolder([place])
        assert not dead_folder.parent.exists()
        assert folder.is_dir()
        memory.close()
    finally:
        alive.kill()
        for process in (alive, dead):
            process.wait()
            process.stdout.close()


def squat_by_mode(base: Path) -> None:
    base.mkdir()
    base.chmod(0o755)


def squat_by_link(base: Path) -> None:
    elsewhere = base.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    base.symlink_to(elsewhere)


def squat_by_file(base: Path) -> None:
    base.write_text("")


@pytest.mark.parametrize("squat", [squat_by_mode, squat_by_link, squat_by_file])
def test_a_name_that_somebody_else_has_taken_is_not_used(place, squat):
    squat(place / f"vigia-{os.getuid()}")
    with pytest.raises(StoreError, match="not a private folder of this user"):
        MemoryFolder([place])


def test_swap_on_a_disk_is_told_and_zram_is_not(place, tmp_path, monkeypatch, caplog):
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 5\n")
    monkeypatch.setattr(memoryfolder, "SWAPS", swaps)
    with caplog.at_level(logging.WARNING):
        MemoryFolder([place]).close()
        assert caplog.text == ""
        swaps.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 1 0 5\n")
        MemoryFolder([place]).close()
    assert "swap on /dev/sda2" in caplog.text


def test_it_can_be_closed_twice(place):
    memory = MemoryFolder([place])
    memory.close()
    memory.close()
