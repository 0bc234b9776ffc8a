"""Each kind of source, on real files and a real HTTP server."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.capture.base import is_live, kind_of, open_device
from agent.capture.probe import probe, probe_all
from agent.config import CameraConfig
from agent.errors import CaptureError, ConfigError

FRAMES = 12


def camera(source: object, **settings: object) -> CameraConfig:
    return CameraConfig.model_validate({"source": str(source), **settings})


def all_of(config: CameraConfig) -> list[np.ndarray]:
    device = open_device(config)
    pictures = []
    while (picture := device.read()) is not None:
        pictures.append(picture)
    device.close()
    return pictures


@pytest.mark.parametrize(
    ("source", "kind", "live"),
    [
        ("rtsp://h/s", "rtsp", True),
        ("rtsps://h/s", "rtsp", True),
        ("http://h/s", "http", True),
        ("https://h/s", "http", True),
        ("csi://0", "csi", True),
        ("0", "v4l2", True),
        ("/dev/video3", "v4l2", True),
        ("videotestsrc ! videoconvert ! appsink", "gstreamer", True),
        ("rtspsrc location=rtsp://h ! decodebin ! appsink", "gstreamer", True),
        ("synthetic://64x48@5", "synthetic", True),
        ("synthetic://64x48@5?frames=3", "synthetic", False),
        ("video.mp4", "file", False),
        ("file:///video.mp4", "file", False),
        ("a/*.png", "images", False),
        ("a/b.JPG", "images", False),
    ],
)
def test_the_kind_is_told_from_the_source(source, kind, live):
    assert kind_of(camera(source)) == kind
    assert is_live(camera(source)) is live


def test_a_kind_that_is_said_wins():
    assert kind_of(camera("anything.bin", kind="rtsp")) == "rtsp"


def test_an_unknown_scheme_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match=r"ftp://.*rtsp.*kind:"):
        kind_of(camera("ftp://h/s"))


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg command to make an H.264 video")
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    source = f"testsrc=size=160x120:rate=25:duration={FRAMES / 25}"
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True, timeout=30)
    return path


def test_a_video_file_gives_every_frame_and_ends(video: Path):
    device = open_device(camera(video))
    assert device.fps == pytest.approx(25)
    assert device.codec in ("h264", "avc1")
    device.close()
    pictures = all_of(camera(video))
    assert len(pictures) == FRAMES
    assert pictures[0].shape == (120, 160, 3)


def test_files_that_are_no_videos_say_what_is_wrong(tmp_path: Path):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for path, said in (
        (text, "not a video"),
        (empty, "is empty"),
        (tmp_path / "missing.mp4", "no such file"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(CaptureError, match=said):
            open_device(camera(path, kind="file"))


def test_pictures_of_a_folder_come_in_order_and_a_broken_one_is_passed_over(tmp_path, caplog):
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 4, 3), number, np.uint8))
    (tmp_path / "1b.png").write_bytes(b"broken")
    (tmp_path / "readme.txt").write_text("no picture")
    for source in (tmp_path, tmp_path / "*.png"):
        caplog.clear()
        assert [int(p[0, 0, 0]) for p in all_of(camera(source))] == [0, 1, 2]
        assert caplog.text.count("1b.png: not a picture") == 1


def test_a_folder_without_a_readable_picture_is_an_error(tmp_path: Path):
    with pytest.raises(CaptureError, match="no pictures there"):
        open_device(camera(tmp_path))
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(CaptureError, match="none of 1 pictures"):
        all_of(camera(tmp_path))


def test_a_sixteen_bit_grey_picture_is_read(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6), 0x8000, np.uint16))
    report = probe("x", camera(tmp_path / "a.png"), 5)
    assert report.ok
    assert (report.width, report.height) == (6, 4)


def test_a_camera_that_is_not_there_is_told_with_how_to_find_those_that_are():
    with pytest.raises(CaptureError, match=r"/dev/video97: no such camera.*v4l2-ctl"):
        open_device(camera("97"))


def test_a_device_that_is_no_camera_is_refused():
    with pytest.raises(CaptureError, match="/dev/null"):
        open_device(camera("/dev/null"))


@pytest.mark.parametrize(
    "source", ["synthetic://", "synthetic://64", "synthetic://64x48@x", "synthetic://99999x48"]
)
def test_a_synthetic_scene_that_is_written_wrong_is_shown_how(source):
    with pytest.raises(ConfigError, match=r"synthetic://640x480@30"):
        open_device(camera(source))


def test_a_synthetic_scene_is_the_same_every_time_and_moves():
    first, second = (all_of(camera("synthetic://64x48@5?frames=3")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[2])


def test_gstreamer_needs_an_appsink_and_an_opencv_that_has_it():
    with pytest.raises(ConfigError, match="appsink"):
        open_device(camera("videotestsrc ! fakesink"))
    with pytest.raises(ConfigError, match="csi://0"):
        open_device(camera("csi://left"))


# -- HTTP ----------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """A camera with snapshots, streams and mistakes."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(b"user:secret").decode()
        path = self.path.partition("?")[0]
        if path.startswith("/private") and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif path in ("/snapshot", "/private/snapshot"):
            self._send("image/jpeg", self.server.jpeg)
        elif path == "/text":
            self._send("text/html", b"<html>")
        elif path in ("/mjpeg", "/mjpeg-without-length"):
            self._stream(with_length=path == "/mjpeg")
        elif path == "/mjpeg-huge":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--frame")
            self.end_headers()
            self.wfile.write(b"--frame\r\nContent-Length: 999999999\r\n\r\n")
        elif path == "/broken":
            self._send("image/jpeg", b"no picture")
        else:
            self.send_error(404)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, *, with_length: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", 'multipart/x-mixed-replace; boundary="frame"')
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
            if with_length:
                self.wfile.write(b"Content-Length: %d\r\n" % len(self.server.jpeg))
            self.wfile.write(b"\r\n" + self.server.jpeg + b"\r\n")
        self.wfile.write(b"--frame--\r\n")


@pytest.fixture(scope="module")
def http() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.jpeg = cv2.imencode(".jpg", np.full((30, 40, 3), 200, np.uint8))[1].tobytes()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["mjpeg", "mjpeg-without-length"])
def test_an_mjpeg_stream_gives_its_pictures_and_then_is_lost(http, path):
    device = open_device(camera(f"http://{http}/{path}"))
    for _ in range(3):
        assert device.read().shape == (30, 40, 3)
    with pytest.raises(CaptureError, match="ended the stream"):
        device.read()
    device.close()


def test_a_snapshot_is_asked_for_again_and_again(http):
    device = open_device(camera(f"http://{http}/snapshot", fps=200))
    assert [device.read().shape for _ in range(3)] == [(30, 40, 3)] * 3
    device.close()


def test_user_and_password_of_the_url_are_used(http):
    assert probe("x", camera(f"http://user:secret@{http}/private/snapshot", fps=100), 5).ok


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("private/snapshot", "wrong user or password"),
        ("nothing", "nothing at this path"),
        ("text", "text/html, neither a picture nor an MJPEG stream"),
        ("broken", "cannot be decoded"),
        ("mjpeg-huge", "too large"),
    ],
)
def test_what_an_http_camera_does_wrong_is_told_without_the_password(http, path, said):
    report = probe("x", camera(f"http://user:wrong@{http}/{path}?token=hush"), 5)
    assert not report.ok
    assert said in report.reason
    assert "wrong@" not in report.reason
    assert "hush" not in report.reason


def test_a_server_that_is_not_there_is_told():
    assert "refused" in probe("x", camera("http://127.0.0.1:9/snap"), 5).reason


def test_probing_many_keeps_their_order(video: Path):
    reports = probe_all({"a": camera(video), "b": camera("98"), "c": camera(video)}, 5)
    assert [(r.camera, r.ok) for r in reports] == [("a", True), ("b", False), ("c", True)]
    assert reports[0].fps == 25
    assert "160x120" in reports[0].text()
    assert "FAILED" in reports[1].text()
