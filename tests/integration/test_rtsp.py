"""Cameras against a real RTSP server that is killed, stopped and changed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from agent.capture.camera import Camera, CameraStatus
from agent.capture.probe import probe
from agent.config import CameraConfig
from agent.frame import Frame
from tests.integration.agents import has, settings
from tests.integration.servers import RtspServer, has_rtsp_server, require
from tests.integration.subscriber import Subscriber

SOON_S = 30.0


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    require(has_rtsp_server(), "GStreamer's RTSP server with Python bindings")


@pytest.fixture
def server() -> Iterator[RtspServer]:
    server = RtspServer()
    server.start()
    yield server
    server.kill()


class Watched:
    """A supervised camera in a thread."""

    def __init__(self, url: str, **settings: object) -> None:
        quick = {"stall_timeout_s": 2, "open_timeout_s": 5, "reconnect_max_s": 0.5}
        config = CameraConfig.model_validate({"source": url, **quick, **settings})
        self.changed = threading.Condition()
        self.frames: list[Frame] = []
        self.statuses: list[CameraStatus] = []
        self.stop = threading.Event()
        camera = Camera("cam", config, self._status)
        self.thread = threading.Thread(target=camera.run, args=(self._frame, self.stop))

    def _frame(self, frame: Frame) -> bool:
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
            assert self.changed.wait_for(condition, SOON_S), self.statuses

    def more(self, count: int = 5) -> None:
        target = len(self.frames) + count
        self.until(lambda: len(self.frames) >= target)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(url: str, **settings: object) -> Watched:
        made.append(Watched(url, **settings))
        made[-1].thread.start()
        return made[-1]

    yield start
    for watched in made:
        watched.stop.set()
        watched.thread.join(SOON_S)
        assert not watched.thread.is_alive()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_arrive(server, watch, transport):
    camera = watch(server.url(), transport=transport)
    camera.more(10)
    assert (camera.frames[0].width, camera.frames[0].height) == (320, 240)
    assert camera.statuses[0].state == "online"


def test_a_killed_server_is_found_again_with_another_picture_size(server, watch):
    camera = watch(server.url())
    camera.more()
    server.kill()
    camera.until(lambda: any("refused" in s.reason for s in camera.statuses))
    server.size = (640, 480)
    server.start()
    camera.until(lambda: camera.frames[-1].width == 640)
    indices = [f.index for f in camera.frames]
    assert indices == sorted(set(indices))
    assert camera.statuses[-1].state == "online"


def test_a_server_that_freezes_is_noticed_and_found_again(server, watch):
    camera = watch(server.url())
    camera.more()
    server.signal(signal.SIGSTOP)
    camera.until(lambda: camera.statuses[-1].state != "online")
    server.signal(signal.SIGCONT)
    camera.more()
    camera.until(lambda: camera.statuses[-1].state == "online")


def test_a_camera_that_is_started_later_is_found(watch):
    server = RtspServer()
    camera = watch(server.url())
    camera.until(lambda: camera.statuses)
    assert "connection refused" in camera.statuses[0].reason
    server.start()
    try:
        camera.more()
    finally:
        server.kill()


def test_wrong_and_right_passwords_and_paths(capfd):
    server = RtspServer(credentials=("user", "right"))
    server.start()
    try:
        settings = {"open_timeout_s": 5}
        reasons = {
            url: probe("x", CameraConfig(source=url, **settings), 5)
            for url in (
                server.url("user:wr0ng-secret@"),
                server.url(),
                server.url("user:right@"),
            )
        }
    finally:
        server.kill()
    wrong, missing, right = reasons.values()
    assert "wrong user or password" in wrong.reason
    assert "wants a user and password" in missing.reason
    assert right.ok, right.reason
    # Frames that waited while the stream was opened do not count.
    assert 15 < right.fps < 35
    seen = capfd.readouterr()
    assert "wr0ng-secret" not in seen.out + seen.err + wrong.reason


def test_a_path_that_is_not_there_is_told(server):
    report = probe("x", CameraConfig(source=server.url(path="other")), 5)
    assert "no stream of this name" in report.reason


def test_an_agent_that_is_stopped_while_a_camera_is_being_opened_ends_well(
    server, agents, own_mosquitto, model, prefix
):
    """The reader hangs in native code; the end of the process must not pull libraries from it."""
    broker = own_mosquitto()
    cameras = {"gate": {"source": server.url()}, "made": {"source": "synthetic://64x64@10"}}
    server.signal(signal.SIGSTOP)
    with Subscriber(broker.port, f"{prefix}/#") as reader:
        process = agents.start(settings(broker.port, prefix, model, cameras))
        reader.wait_for(has("made", 1), SOON_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 0, agents.log()
