"""Cameras as the pipeline sees them, driven by a test."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from agent.frame import Frame


class ListFeed:
    """Delivers a list of frames and ends; lossless unless told otherwise."""

    def __init__(self, frames: list[Frame], *, live: bool = False) -> None:
        self.live = live
        self.frames = frames
        self.refused = 0

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        for frame in self.frames:
            if stop.is_set() or not deliver(frame):
                self.refused += 1


class QueueFeed:
    """Delivers what the test puts into `frames`, until it is stopped."""

    def __init__(self, *, live: bool = True) -> None:
        self.live = live
        self.frames: queue.Queue[Frame] = queue.Queue()

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                frame = self.frames.get(timeout=0.02)
            except queue.Empty:
                continue
            deliver(frame)


class CrashingFeed:
    """A camera thread with a bug."""

    live = True

    def run(self, deliver: Callable[[Frame], bool], stop: threading.Event) -> None:
        raise LookupError("camera bug")
