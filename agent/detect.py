"""One-shot detection: sources in, one result a frame out, annotated pictures on the side."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from agent.capture.camera import Camera
from agent.config import CameraConfig
from agent.errors import CaptureError, ConfigError
from agent.pipeline.pipeline import CameraPlan, Pipeline
from agent.vision.draw import annotate

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.capture.camera import CameraStatus
    from agent.detection import Result
    from agent.frame import Frame
    from agent.pipeline.worker import LoadedModel

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
VIDEOS = {".mp4", ".avi", ".mkv"}

DEFAULT_VIDEO_FPS = 25.0
"""Rate of a saved video; sources do not all tell theirs."""

QUEUE_FRAMES = 4


def detect(
    model: LoadedModel,
    camera: CameraConfig,
    name: str,
    show: Callable[[Result], None],
    save: Saver | None = None,
    limit: int | None = None,
) -> int:
    """Analyse one source to its end.

    Args:
        model: loaded; stays loaded.
        camera: the source.
        name: what results call it.
        show: called with each result, in order.
        save: takes annotated pictures, or None.
        limit: stop after this many results.

    Returns:
        How many frames were analysed.

    Raises:
        CaptureError: the source could not be read.
        InferenceError: the model failed.
    """
    statuses: list[CameraStatus] = []
    feed = _Tap(Camera(name, camera, statuses.append), keep=save is not None)
    sink = _DetectSink(feed, model, show, save, limit)
    pipeline = Pipeline(
        cameras={name: CameraPlan(feed, "main")},
        models={"main": lambda: model},
        sink=sink,
        queue_frames=QUEUE_FRAMES,
    )
    sink.enough = pipeline.stop
    pipeline.load()
    pipeline.start()
    try:
        pipeline.wait()
    except KeyboardInterrupt:
        pipeline.stop()
        pipeline.wait()
        raise
    if statuses and statuses[-1].state == "failed":
        raise CaptureError(statuses[-1].reason)
    return sink.count


class _Tap:
    """Remembers frames until their results come, so that they can be drawn into."""

    def __init__(self, camera: Camera, *, keep: bool) -> None:
        self.live = camera.live
        self._camera = camera
        self._keep = keep
        self._lock = threading.Lock()
        self._frames: dict[int, Frame] = {}

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        def tapped(frame: Frame) -> bool:
            if self._keep:
                with self._lock:
                    self._frames[frame.index] = frame
            return deliver(frame)

        self._camera.run(tapped, stop)

    def take(self, index: int) -> Frame | None:
        """The frame of a result; forgets it and every older one, whose results will not come."""
        with self._lock:
            for old in [i for i in self._frames if i < index]:
                del self._frames[old]
            return self._frames.pop(index, None)


class _DetectSink:
    def __init__(
        self,
        tap: _Tap,
        model: LoadedModel,
        show: Callable[[Result], None],
        save: Saver | None,
        limit: int | None,
    ) -> None:
        self.count = 0
        self.enough: Callable[[], None] = lambda: None
        self._tap = tap
        self._names = model.ref.names
        self._show = show
        self._save = save
        self._limit = limit

    def publish(self, result: Result) -> None:
        if self._limit is not None and self.count >= self._limit:
            return
        self.count += 1
        self._show(result)
        if self._save is not None:
            frame = self._tap.take(result.frame_index)
            if frame is not None:
                self._save.write(annotate(frame.pixels, result.detections, self._names), result)
        if self.count == self._limit:
            self.enough()


class Saver:
    """Writes annotated pictures: to one picture, to a video, or numbered into a folder.

    Args:
        out: `*.jpg|png|…` for the last picture of the source, `*.mp4|avi|mkv` for a video, anything
            else for a folder with one picture a frame.

    Raises:
        ConfigError: the place cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._video: cv2.VideoWriter | None = None
        self.kind = (
            "picture"
            if out.suffix.lower() in PICTURES
            else "video"
            if out.suffix.lower() in VIDEOS
            else "folder"
        )
        folder = out if self.kind == "folder" else out.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--save {out}: cannot write there: {error.strerror}") from error

    def write(self, picture: cv2.typing.MatLike, result: Result) -> None:
        """Save one picture.

        Raises:
            ConfigError: it cannot be written.
        """
        if self.kind == "video":
            self._write_video(picture)
            return
        path = self._out
        if self.kind == "folder":
            path = self._out / f"{result.camera}-{result.frame_index:06d}.jpg"
        if not cv2.imwrite(str(path), picture):
            raise ConfigError(f"--save {path}: cannot be written")

    def close(self) -> None:
        """Finish a video."""
        if self._video is not None:
            self._video.release()

    def _write_video(self, picture: cv2.typing.MatLike) -> None:
        if self._video is None:
            height, width = picture.shape[:2]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            size = (width, height)
            self._video = cv2.VideoWriter(str(self._out), codec, DEFAULT_VIDEO_FPS, size)
            if not self._video.isOpened():
                raise ConfigError(f"--save {self._out}: this OpenCV cannot write such a video")
        self._video.write(picture)


def plan(source: str) -> CameraConfig:
    """Settings for a source named on the command line: files as fast as they are analysed.

    Raises:
        ConfigError: a file that does not exist.
    """
    if not source:
        raise ConfigError("a source is empty; name a picture, folder, video, URL or device number")
    camera = CameraConfig(source=source)
    plain = "://" not in source and "!" not in source and not source.isdigit()
    if plain and not any(c in source for c in "*?[") and not Path(source).exists():
        raise ConfigError(f"{source}: no such file or folder")
    return camera
