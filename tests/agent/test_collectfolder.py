from __future__ import annotations

import stat
import subprocess
import sys

import cv2
import numpy as np
import pytest

from agent.collectfolder import PictureFolder
from agent.errors import ConfigError

PICTURE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
ROOM = 10**6


def names(path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_pictures_are_numbered_and_private(tmp_path):
    out = tmp_path / "a" / "pictures"
    folder = PictureFolder(out)
    assert folder.write("belt", PICTURE, ROOM)
    assert folder.write("gate", PICTURE, ROOM)
    assert names(out) == ["000000-belt.jpg", "000001-gate.jpg"]
    assert mode(out) == 0o700
    assert {mode(path) for path in out.iterdir()} == {0o600}
    assert folder.bytes == sum(path.stat().st_size for path in out.iterdir())
    read = cv2.imread(str(out / "000000-belt.jpg"))
    assert read.shape == PICTURE.shape


def test_numbering_and_size_go_on_after_what_is_there(tmp_path):
    first = PictureFolder(tmp_path)
    for _ in range(3):
        first.write("belt", PICTURE, ROOM)
    (tmp_path / "000000-belt.jpg").unlink()
    (tmp_path / "holiday.jpg").write_bytes(b"not ours")
    again = PictureFolder(tmp_path)
    assert again.number == 3
    assert again.bytes == first.bytes * 2 // 3
    again.write("belt", PICTURE, ROOM)
    assert names(tmp_path)[-2:] == ["000003-belt.jpg", "holiday.jpg"]


def test_what_was_interrupted_is_removed(tmp_path):
    (tmp_path / ".part-000007").write_bytes(b"half a picture")
    folder = PictureFolder(tmp_path)
    assert names(tmp_path) == []
    assert folder.number == 0


def test_a_picture_that_is_too_large_is_not_written(tmp_path):
    folder = PictureFolder(tmp_path)
    assert not folder.write("belt", PICTURE, 100)
    assert names(tmp_path) == []
    assert (folder.number, folder.bytes) == (0, 0)


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    PictureFolder(tmp_path)
    assert mode(tmp_path) == 0o750


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    # A limit on the size of files is how a disk refuses without filling one.
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from agent.collectfolder import PictureFolder\n"
        "picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)\n"
        "PictureFolder(Path(sys.argv[1])).write('belt', picture, 10**6)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.stderr.splitlines()[-1].startswith("agent.errors.ConfigError: --out ")
    assert "pictures cannot be written: file too large" in run.stderr
    assert names(tmp_path / "out") == []


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    place = tmp_path / "file"
    place.write_text("x")
    with pytest.raises(ConfigError, match=r"--out .*cannot be written: file exists"):
        PictureFolder(place)
