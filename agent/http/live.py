"""Live pictures with what was found drawn in: drawn once for all who look, and only while they do.

A camera that is looked at has one thread, which takes the newest frame at a limited rate, draws and
encodes. When nobody has looked for a while, it ends.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2

from agent.pipeline.tap import Tap
from agent.progress import Activity
from agent.vision.draw import annotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from agent.detection import Detections, Result
    from agent.frame import Frame
    from agent.http.ports import Show

MAX_WIDTH = 960
"""Pixels; wider pictures are made smaller before they are drawn on."""

QUALITY = 78
"""Of the JPEG, percent."""

LINGER_S = 3.0
"""A camera nobody has asked for since is not drawn any more."""

MAX_VIEWS = 16
"""Cameras that are drawn at a time."""

MAX_STREAMS = 8
"""Endless streams at a time."""

NICE = 5
"""Lowers the priority of drawing below that of inference."""


def encode(frame: Frame, result: Result) -> bytes:
    """A JPEG of a frame with its detections."""
    pixels, found = frame.pixels, result.detections
    scale = MAX_WIDTH / frame.width
    if scale < 1 and found.masks is None:
        size = (MAX_WIDTH, max(1, round(frame.height * scale)))
        pixels = _shrunk(pixels, size)
        found = _scaled(found, scale)
    picture = annotate(pixels, found, result.model.names)
    if picture.shape[1] > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(frame.height * scale)))
        picture = _shrunk(picture, size)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return jpeg.tobytes()


def _shrunk(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smaller picture: the mean of whole pixels, which is fast, then what lies between them.

    Means of parts of pixels take 4 ms of processor time for a 720p picture, this 0.9 ms.
    """
    height, width = pixels.shape[:2]
    whole = width // size[0]
    if whole > 1:
        means = (width // whole, height // whole)
        pixels = cv2.resize(pixels, means, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _scaled(found: Detections, scale: float) -> Detections:
    points, rotated = found.keypoints, found.rotated
    return replace(
        found,
        boxes=found.boxes * scale,
        keypoints=None if points is None else points * (scale, scale, 1.0),
        rotated=None if rotated is None else rotated * (scale, scale, scale, scale, 1.0),
    )


class View:
    """One camera that is looked at."""

    def __init__(self) -> None:
        self.tap = Tap()
        self.activity = Activity()
        self.number = 0
        self.jpeg = b""
        self.arrived = threading.Condition()
        self.watchers = 0
        self.asked_s = 0.0
        self.closed = False


class Live:
    """All views.

    Args:
        show: as `agent.http.ports.Sources.show`.
        fps: pictures a second and camera.
        clock: monotonic seconds.

    Attributes:
        streams: endless streams that are open.
        drawn: pictures so far.
        let_go: readers of streams that took nothing for too long.
    """

    def __init__(
        self,
        show: Callable[[Show | None], None],
        fps: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._period_s = 1 / fps
        self._clock = clock
        self._lock = threading.Lock()
        # Replaced, never changed: workers read it.
        self._views: dict[str, View] = {}
        self._closed = False
        self.streams = 0
        self.drawn = 0
        self.let_go = 0

    @property
    def views(self) -> int:
        """Cameras that are drawn."""
        return len(self._views)

    @property
    def busy_s(self) -> float | None:
        """How long the slowest view has been at its picture; None if all wait."""
        ages = [view.activity.age_s for view in self._views.values()]
        return max((age for age in ages if age is not None), default=None)

    def offer(self, frame: Frame, result: Result) -> None:
        """An analysed frame; in the worker's thread."""
        view = self._views.get(frame.camera)
        if view is not None:
            view.tap.offer(frame, result)

    @contextlib.contextmanager
    def watch(self, camera: str) -> Iterator[View | None]:
        """Have a camera drawn within the block; None if there are too many."""
        with self._lock:
            view = self._open(camera)
            if view is not None:
                view.watchers += 1
        try:
            yield view
        finally:
            if view is not None:
                with self._lock:
                    view.watchers -= 1
                    view.asked_s = self._clock()

    @contextlib.contextmanager
    def stream(self) -> Iterator[bool]:
        """Count an endless stream; False if there are too many."""
        with self._lock:
            allowed = self.streams < MAX_STREAMS and not self._closed
            self.streams += allowed
        try:
            yield allowed
        finally:
            with self._lock:
                self.streams -= allowed

    def newer(self, view: View, number: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Wait for a picture whose number is greater; None if none came in time."""
        with view.arrived:
            view.arrived.wait_for(lambda: view.closed or view.number > number, timeout_s)
            if view.closed or view.number <= number:
                return None
            return view.number, view.jpeg

    def close(self) -> None:
        """End all views; whoever waits gets nothing."""
        with self._lock:
            self._closed = True
            views = list(self._views.values())
        for view in views:
            self._end(view)

    def _open(self, camera: str) -> View | None:
        view = self._views.get(camera)
        # One that has ended may not be gone yet.
        if view is not None and not view.closed:
            return view
        if self._closed or len(self._views) >= MAX_VIEWS:
            return None
        view = View()
        view.asked_s = self._clock()
        view.tap.open(self._period_s)
        self._views = {**self._views, camera: view}
        self._show(self.offer)
        threading.Thread(
            target=self._draw, args=(camera, view), name=f"live-{camera}", daemon=True
        ).start()
        return view

    def _draw(self, camera: str, view: View) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            while self._wanted(camera, view):
                found = view.tap.take(LINGER_S / 3)
                if found is None:
                    # A model slot may have come since.
                    self._show(self.offer)
                    continue
                with view.activity:
                    jpeg = encode(*found)
                with view.arrived:
                    view.number, view.jpeg = view.number + 1, jpeg
                    view.arrived.notify_all()
                self.drawn += 1
        finally:
            self._end(view)
            self._drop(camera, view)

    def _wanted(self, camera: str, view: View) -> bool:
        with self._lock:
            if view.closed or self._closed:
                return False
            if view.watchers or self._clock() - view.asked_s < LINGER_S:
                return True
            # Under the lock, so that nobody joins a view that ends.
            self._views = {n: v for n, v in self._views.items() if n != camera}
            return False

    def _drop(self, camera: str, view: View) -> None:
        with self._lock:
            self._views = {n: v for n, v in self._views.items() if not (n == camera and v is view)}
            if not self._views:
                self._show(None)

    def _end(self, view: View) -> None:
        with view.arrived:
            view.closed = True
            view.arrived.notify_all()
        view.tap.close()
