"""Supervision of cameras, on devices that the test scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from agent.backoff import Backoff
from agent.capture.camera import MAX_GIVEN_UP, Camera, CameraStatus
from agent.config import CameraConfig
from agent.errors import CaptureError
from agent.frame import Frame
from tests.fakes.device import PICTURE, ScriptedDevice

SOON_S = 10.0


class Rig:
    """A camera in a thread, the devices it opens, and what it delivered."""

    def __init__(self, *devices: ScriptedDevice | Exception, **settings: object) -> None:
        config = {"source": "rtsp://camera", "stall_timeout_s": 0.3, "open_timeout_s": 5}
        self.config = CameraConfig.model_validate({**config, **settings})
        self.waiting = list(devices)
        self.opened: list[ScriptedDevice] = []
        self.frames: list[Frame] = []
        self.statuses: list[CameraStatus] = []
        self.stop = threading.Event()
        self.changed = threading.Condition()
        no_wait = Backoff(0.001, 0.001)
        self.camera = Camera("cam", self.config, self._status, self._open, no_wait)
        self.thread = threading.Thread(
            target=self.camera.run, args=(self._deliver, self.stop), daemon=True
        )

    def _open(self, _config: CameraConfig) -> ScriptedDevice:
        device = self.waiting.pop(0) if self.waiting else ScriptedDevice()
        if isinstance(device, Exception):
            raise device
        with self.changed:
            self.opened.append(device)
            self.changed.notify_all()
        return device

    def _deliver(self, frame: Frame) -> bool:
        with self.changed:
            self.frames.append(frame)
            self.changed.notify_all()
        return True

    def _status(self, status: CameraStatus) -> None:
        with self.changed:
            self.statuses.append(status)
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SOON_S)

    def states(self) -> list[str]:
        return [status.state for status in self.statuses]


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(*devices: ScriptedDevice | Exception, **settings: object) -> Rig:
        made.append(Rig(*devices, **settings))
        made[-1].thread.start()
        return made[-1]

    yield make
    for rig in made:
        rig.stop.set()
        rig.thread.join(SOON_S)
        assert not rig.thread.is_alive()


def test_frames_are_numbered_stamped_and_read_only(rigs):
    before = time.monotonic_ns()
    rig = rigs(ScriptedDevice(PICTURE.copy(), PICTURE.copy()))
    rig.until(lambda: len(rig.frames) == 2)
    assert [f.index for f in rig.frames] == [0, 1]
    assert before < rig.frames[0].monotonic_ns <= rig.frames[1].monotonic_ns
    assert abs(rig.frames[0].wall_s - time.time()) < SOON_S
    with pytest.raises(ValueError, match="read-only"):
        rig.frames[0].pixels[0, 0, 0] = 1


def test_a_lost_camera_is_opened_again_and_numbers_go_on(rigs):
    first = ScriptedDevice(PICTURE.copy(), CaptureError("the stream was lost"))
    rig = rigs(first, ScriptedDevice(PICTURE.copy()))
    rig.until(lambda: len(rig.frames) == 2)
    assert [f.index for f in rig.frames] == [0, 1]
    assert first.closed
    assert rig.states()[:3] == ["online", "connecting", "online"]
    assert rig.statuses[1].reason == "the stream was lost"


def test_a_camera_that_is_down_at_the_start_is_tried_until_it_is_there(rigs):
    down = [CaptureError("connection refused")] * 3
    rig = rigs(*down, ScriptedDevice(PICTURE.copy()))
    rig.until(lambda: rig.frames)
    rig.until(lambda: "online" in rig.states())
    # The same reason is told once; the attempts are counted.
    assert rig.states() == ["connecting", "online"]
    assert rig.statuses[0].reason == "connection refused"
    assert rig.statuses[0].attempts >= 1
    assert rig.camera.status.attempts == 0


def test_a_camera_that_hangs_is_given_up_opened_anew_and_never_delivers_again(rigs):
    hung = ScriptedDevice(PICTURE.copy())
    rig = rigs(hung, ScriptedDevice(PICTURE.copy()))
    rig.until(lambda: len(rig.frames) == 2)
    assert "stalled" in rig.states()
    assert "no frame for 0.3 s" in next(s.reason for s in rig.statuses if s.state == "stalled")
    assert rig.camera.given_up == 1
    hung.script.put(PICTURE.copy())
    wait_until(lambda: hung.closed)
    wait_until(lambda: rig.camera.given_up == 0)
    assert len(rig.frames) == 2


def wait_until(condition: Callable[[], object]) -> None:
    deadline, tick = time.monotonic() + SOON_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.01)


def test_no_more_readers_are_started_while_too_many_hang(rigs):
    rig = rigs(*(ScriptedDevice(PICTURE.copy()) for _ in range(MAX_GIVEN_UP + 2)))
    rig.until(lambda: any("have not returned" in s.reason for s in rig.statuses))
    assert len(rig.opened) == MAX_GIVEN_UP
    rig.opened[0].script.put(PICTURE.copy())
    rig.until(lambda: len(rig.opened) == MAX_GIVEN_UP + 1)


def test_a_change_of_size_is_just_another_frame(rigs):
    big = np.zeros((20, 30, 3), np.uint8)
    rig = rigs(ScriptedDevice(PICTURE.copy(), big))
    rig.until(lambda: len(rig.frames) == 2)
    assert [(f.width, f.height) for f in rig.frames] == [(12, 8), (30, 20)]
    assert rig.states() == ["online"]


def test_a_frame_without_pixels_reopens_the_camera_with_the_reason(rigs):
    rig = rigs(ScriptedDevice(np.zeros((0, 5, 3), np.uint8)), ScriptedDevice(PICTURE.copy()))
    rig.until(lambda: rig.frames)
    assert any("no pixels" in s.reason for s in rig.statuses)


def test_a_bug_in_a_driver_is_one_more_reason_to_open_it_again(rigs, caplog):
    rig = rigs(ScriptedDevice(LookupError("bug")), ScriptedDevice(PICTURE.copy()))
    rig.until(lambda: rig.frames)
    assert any("LookupError: bug" in s.reason for s in rig.statuses)
    assert "unexpected failure" in caplog.text


def test_frames_over_the_limit_are_skipped_but_counted(rigs):
    device = ScriptedDevice()
    rig = rigs(device, fps=1, stall_timeout_s=60)
    for _ in range(5):
        device.script.put(PICTURE.copy())
    wait_until(lambda: rig.camera._index == 5)
    assert [f.index for f in rig.frames] == [0]


def run_file(**settings: object) -> tuple[list[Frame], list[CameraStatus]]:
    frames: list[Frame] = []
    statuses: list[CameraStatus] = []
    stop = threading.Event()

    def deliver(frame: Frame) -> bool:
        frames.append(frame)
        return len(frames) < 25

    Camera("file", CameraConfig.model_validate(settings), statuses.append).run(deliver, stop)
    return frames, statuses


def test_a_finite_scene_is_lossless_and_ends():
    frames, statuses = run_file(source="synthetic://32x24@30?frames=7")
    assert [f.index for f in frames] == list(range(7))
    assert [s.state for s in statuses] == ["online", "ended"]


def test_a_looping_source_starts_over_and_numbers_go_on():
    frames, _ = run_file(source="synthetic://32x24@30?frames=7", loop=True)
    assert [f.index for f in frames] == list(range(25))
    np.testing.assert_array_equal(frames[0].pixels, frames[7].pixels)


def test_a_rate_limit_thins_a_file_by_its_own_time():
    frames, _ = run_file(source="synthetic://32x24@30?frames=30", fps=10)
    assert [f.index for f in frames] == list(range(0, 30, 3))


def test_real_time_pacing_keeps_the_files_own_rate():
    began = time.monotonic()
    frames, _ = run_file(source="synthetic://32x24@50?frames=11", realtime=True)
    assert len(frames) == 11
    assert time.monotonic() - began >= 10 / 50 * 0.95


def test_a_file_that_is_not_there_has_failed_and_says_so():
    frames, statuses = run_file(source="/nowhere/video.mp4")
    assert frames == []
    assert statuses[-1].state == "failed"
    assert "/nowhere/video.mp4: no such file" in statuses[-1].reason
