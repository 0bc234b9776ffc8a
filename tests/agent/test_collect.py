from __future__ import annotations

import json
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.cli import app
from agent.collect import CollectRequest, collect, moments
from agent.config import CameraConfig
from agent.errors import CaptureError, ConfigError

BYTES = 10**9


class Scene:
    """A camera whose pictures a test decides; implements `agent.capture.base.Device`."""

    fps = 0.0
    codec = "fake"

    def __init__(self, picture, *, frames: int | None = None) -> None:
        self._picture = picture
        self._number = 0
        self._frames = frames
        self.closed = threading.Event()

    def read(self):
        if self._number == self._frames:
            return None
        self.closed.wait(0.002)
        self._number += 1
        return self._picture(self._number)

    def close(self) -> None:
        self.closed.set()


def moving(number: int):
    pixels = np.full((48, 64, 3), 90, np.uint8)
    x = number * 7 % 48
    pixels[8:24, x : x + 16] = 250
    return pixels


def still(_number: int):
    return np.full((48, 64, 3), 90, np.uint8)


def request(path, cameras, count=12, seconds=0.3, max_bytes=BYTES) -> CollectRequest:
    settings = {
        name: CameraConfig(source=f"rtsp://{name}", reconnect_initial_s=0.01) for name in cameras
    }
    return CollectRequest(settings, path, count, seconds, max_bytes)


def run(wanted: CollectRequest, devices):
    done: list[int] = []
    result = collect(wanted, done.append, lambda c: devices[c.source.removeprefix("rtsp://")]())
    return result, done


@given(st.integers(1, 500), st.floats(0.1, 1e6), st.integers(0, 1000))
def test_every_slot_has_one_moment(count, seconds, seed):
    found = moments(count, seconds, seed)
    slots = np.floor(np.array(found) * count / seconds + 1e-9)
    assert found == sorted(found)
    np.testing.assert_array_equal(np.minimum(slots, count - 1), np.arange(count))


def test_moments_are_not_periodic():
    gaps = np.diff(moments(200, 200.0, 0))
    assert gaps.std() > 0.2


def test_pictures_come_from_all_cameras_in_turn(tmp_path):
    result, done = run(
        request(tmp_path, ("a", "b")), {n: lambda: Scene(moving) for n in ("a", "b")}
    )
    assert sum(result.kept.values()) == len(list(tmp_path.iterdir()))
    assert min(result.kept["a"], result.kept["b"]) >= 4
    assert done == list(range(1, 13))
    assert result.ended == ""
    assert result.states == {"a": "online", "b": "online"}


def test_pictures_are_those_of_the_camera_as_configured(tmp_path):
    wanted = request(tmp_path, ("a",), count=2, seconds=0.1)
    turned = wanted.cameras["a"].model_copy(update={"rotate": 90})
    wanted = CollectRequest({"a": turned}, tmp_path, 2, 0.1, BYTES)
    run(wanted, {"a": lambda: Scene(moving)})
    assert cv2.imread(str(next(tmp_path.iterdir()))).shape == (64, 48, 3)


def test_what_does_not_change_is_kept_once(tmp_path):
    result, _ = run(request(tmp_path, ("a",)), {"a": lambda: Scene(still)})
    assert result.kept["a"] == len(list(tmp_path.iterdir())) == 1
    assert result.alike["a"] == 11
    assert result.missed == 0


def test_a_further_run_adds_to_the_folder(tmp_path):
    for _ in range(2):
        run(request(tmp_path, ("a",), count=4, seconds=0.1), {"a": lambda: Scene(moving)})
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found[0] == "000000-a.jpg"
    assert found[-1] == f"{len(found) - 1:06d}-a.jpg"
    assert len(found) > 4


def test_the_size_of_the_folder_is_limited(tmp_path):
    run(request(tmp_path, ("a",), count=3, seconds=0.1), {"a": lambda: Scene(moving)})
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    limit = size + 10
    result, done = run(request(tmp_path, ("a",), max_bytes=limit), {"a": lambda: Scene(moving)})
    assert result.full
    assert "bytes" in result.ended
    assert result.total_bytes <= limit
    assert len(done) < 12


def test_cameras_that_end_end_it(tmp_path):
    video = tmp_path / "belt.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 50.0, (64, 48))
    for number in range(10):
        writer.write(moving(number))
    writer.release()
    cameras = {"file": CameraConfig(source=str(video))}
    wanted = CollectRequest(cameras, tmp_path / "out", 1000, 20.0, BYTES)
    result = collect(wanted, lambda _done: None)
    assert result.ended == "all cameras have ended"
    assert 1 <= result.kept["file"] <= 10


def test_a_camera_that_is_away_does_not_hold_up_the_others(tmp_path):
    def away():
        raise CaptureError("connection refused")

    result, _ = run(request(tmp_path, ("a", "b")), {"a": away, "b": lambda: Scene(moving)})
    assert result.kept["b"] >= 10
    assert result.states["a"] == "connecting (connection refused)"


def test_no_picture_at_all_is_an_error_with_the_reasons(tmp_path):
    def away():
        raise CaptureError("connection refused")

    with pytest.raises(CaptureError, match=r"no camera gave a picture: a: .*connection refused"):
        run(request(tmp_path, ("a",)), {"a": away})


def test_cameras_of_picture_files_are_refused(tmp_path):
    wanted = CollectRequest({"a": CameraConfig(source=str(tmp_path))}, tmp_path, 5, 1.0, BYTES)
    with pytest.raises(ConfigError, match="Give their folder itself"):
        collect(wanted, lambda _done: None)


def test_an_error_ends_the_cameras(tmp_path):
    scenes: list[Scene] = []

    def scene():
        scenes.append(Scene(moving))
        return scenes[-1]

    (tmp_path / "out").mkdir()

    def remove(_done):
        raise ConfigError("the disk is gone")

    wanted = request(tmp_path / "out", ("a",))
    with pytest.raises(ConfigError, match="the disk is gone"):
        collect(wanted, remove, lambda _config: scene())
    assert all(s.closed.wait(5) for s in scenes)


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text(
        "mqtt: {host: localhost}\n"
        "cameras:\n"
        "  belt: {source: 'synthetic://64x48@60'}\n"
        "  off: {source: 'synthetic://64x48@60', enabled: false}\n",
        "utf-8",
    )
    return path


def test_the_command_tells_what_it_kept(config, tmp_path):
    out = tmp_path / "out"
    arguments = ["model", "collect", "-c", config, "--out", out, "--count", 5, "--seconds", 0.5]
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["kept"] == {"belt": len(list(out.iterdir()))}
    assert report["total_bytes"] > 0
    again = CliRunner().invoke(app, list(map(str, arguments)))
    assert "belt: " in again.stdout
    assert "kept" in again.stdout


@pytest.mark.parametrize("name", ["gate", "off"])
def test_a_camera_that_cannot_be_collected_from_is_refused(config, tmp_path, name):
    arguments = ["model", "collect", "-c", str(config), "--out", str(tmp_path / "o")]
    result = CliRunner().invoke(app, [*arguments, "--camera", name])
    assert isinstance(result.exception, ConfigError)
    assert "no enabled camera of this name; there: belt" in str(result.exception)
