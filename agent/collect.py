"""Captures calibration pictures from the configured cameras, spread over time.

The cameras are read by the agent's own capture, so rotation, crop and decoder are those that the
model will see. Time is divided into as many slots as pictures are wanted; cameras take turns, and a
slot's picture is the first after a random moment of it, so that nothing periodic in the scene is
always met at the same phase.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.capture.base import is_live, kind_of, open_device
from agent.capture.camera import Camera
from agent.collectfolder import PictureFolder
from agent.errors import CaptureError, ConfigError
from agent.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.capture.base import Device
    from agent.capture.camera import CameraStatus
    from agent.config import CameraConfig
    from agent.frame import Frame

THUMBNAIL = 32
"""Side in pixels of the small pictures that are compared; each pixel averages sensor noise away."""

NEAR = 1.0
"""Mean difference of two thumbnails, in grey levels of 255, below which they show the same."""

NS_PER_S = 10**9

STALE_S = 1.0
"""A frame that has lain longer than this shows what was, not what is."""

STOP_TIMEOUT_S = 3.0
"""How long cameras may take to stop; one that hangs in its driver is left behind."""


@dataclass(frozen=True, slots=True)
class CollectRequest:
    """What is to be captured.

    Attributes:
        cameras: settings by name.
        out: folder for the pictures.
        count: pictures of all cameras together, at the most.
        seconds: time over which they are spread.
        max_bytes: size of the folder's pictures at the most, with those of earlier runs.
    """

    cameras: Mapping[str, CameraConfig]
    out: Path
    count: int
    seconds: float
    max_bytes: int


@dataclass(slots=True)
class Collected:
    """What was captured.

    Attributes:
        kept: pictures written, by camera.
        alike: slots without a picture because nothing had changed since the last one, by camera.
        missed: slots in which no camera gave a picture.
        total_bytes: size of the folder's pictures, with those of earlier runs.
        full: whether the next picture would have been more than the folder may hold.
        ended: why it ended early; empty if it did not.
        states: how each camera was at the end, and why.
    """

    kept: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    total_bytes: int = 0
    full: bool = False
    ended: str = ""
    states: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "kept": dict(self.kept),
            "alike": dict(self.alike),
            "missed": self.missed,
            "total_bytes": self.total_bytes,
            "ended": self.ended,
            "states": self.states,
        }


def moments(count: int, seconds: float, seed: int) -> list[float]:
    """When each slot's picture is wanted: seconds since the beginning, rising, one in each slot."""
    chance = random.Random(seed)  # noqa: S311 - spreads moments, guards nothing
    return [(slot + chance.random()) * seconds / count for slot in range(count)]


def collect(
    request: CollectRequest,
    tell: Callable[[int], None],
    opener: Callable[[CameraConfig], Device] = open_device,
) -> Collected:
    """Capture pictures.

    Args:
        request: what is wanted.
        tell: called after each slot with the number of slots done.
        opener: opens cameras.

    Raises:
        ConfigError: a camera is of picture files, or the folder cannot be written.
        CaptureError: no camera gave a picture.
    """
    cameras = {name: _timed(name, config) for name, config in request.cameras.items()}
    folder = PictureFolder(request.out)
    table = _Table(cameras)
    stop = threading.Event()
    threads = ThreadGroup(stop.set)
    for name, config in cameras.items():
        camera = Camera(name, config, table.on_status(name), opener)
        threads.start(f"camera-{name}", _run, camera, table, stop)
    try:
        result = _collect(request, folder, table, tell, stop)
    finally:
        stop.set()
        threads.wait(STOP_TIMEOUT_S)
    result.total_bytes = folder.bytes
    result.states = table.states()
    if not (result.kept or result.alike or result.full):
        reasons = "; ".join(f"{name}: {state}" for name, state in result.states.items())
        raise CaptureError(f"no camera gave a picture: {reasons}; try `vigia cameras probe`")
    return result


def _run(camera: Camera, table: _Table, stop: threading.Event) -> None:
    camera.run(table.put, stop)
    table.end(camera.name)


def _collect(
    request: CollectRequest,
    folder: PictureFolder,
    table: _Table,
    tell: Callable[[int], None],
    stop: threading.Event,
) -> Collected:
    result = Collected()
    last: dict[str, NDArray[np.int16]] = {}
    began = time.monotonic()
    when = moments(request.count, request.seconds, folder.number)
    for slot, moment in enumerate(when):
        if stop.wait(max(0.0, began + moment - time.monotonic())):
            break
        alike = ""
        until = began + (slot + 1) * request.seconds / request.count
        while (frame := table.take(until)) is not None:
            small = _thumbnail(frame.pixels)
            before = last.get(frame.camera)
            if before is not None and np.abs(small - before).mean() < NEAR:
                alike = frame.camera
                continue
            if not folder.write(frame.camera, frame.pixels, request.max_bytes - folder.bytes):
                result.full = True
                result.ended = f"the folder holds {folder.bytes} bytes, {request.max_bytes} allowed"
                return result
            last[frame.camera] = small
            result.kept[frame.camera] += 1
            break
        else:
            if alike:
                result.alike[alike] += 1
            elif table.ended:
                result.ended = "all cameras have ended"
                return result
            else:
                result.missed += 1
        tell(slot + 1)
    return result


def _timed(name: str, config: CameraConfig) -> CameraConfig:
    """Settings under which a file plays at its own speed: pictures are spread over time."""
    if kind_of(config) == "images":
        raise ConfigError(
            f"camera {name} reads picture files: there is nothing to collect. "
            "Give their folder itself to quantize.calibration"
        )
    return config if is_live(config) else config.model_copy(update={"realtime": True})


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    small = cv2.resize(pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.int16)


class _Table:
    """Where cameras lay their newest frames, and how they are."""

    def __init__(self, cameras: Mapping[str, CameraConfig]) -> None:
        self._changed = threading.Condition()
        self._turns = list(cameras)
        self._newest: dict[str, Frame] = {}
        self._running = set(cameras)
        self._states = dict.fromkeys(cameras, "connecting")

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self._running

    def put(self, frame: Frame) -> bool:
        """Lay down a frame; the one before it is forgotten."""
        with self._changed:
            self._newest[frame.camera] = frame
            self._changed.notify_all()
        return True

    def end(self, name: str) -> None:
        """A camera gives nothing more."""
        with self._changed:
            self._running.discard(name)
            self._changed.notify_all()

    def take(self, until_s: float) -> Frame | None:
        """The newest frame of the camera whose turn it is, else of the next that has one.

        Args:
            until_s: monotonic time to wait until.

        Returns:
            None if none came, or none will.
        """
        with self._changed:
            while not self._fresh():
                left = until_s - time.monotonic()
                if left <= 0 or not self._running:
                    return None
                self._changed.wait(left)
            name = next(name for name in self._turns if name in self._newest)
            self._turns.remove(name)
            self._turns.append(name)
            return self._newest.pop(name)

    def _fresh(self) -> bool:
        """Forget frames of cameras that have stopped giving any; whether others are there."""
        oldest_ns = time.monotonic_ns() - int(STALE_S * NS_PER_S)
        for name in [n for n, frame in self._newest.items() if frame.monotonic_ns < oldest_ns]:
            del self._newest[name]
        return bool(self._newest)

    def on_status(self, name: str) -> Callable[[CameraStatus], None]:
        """Takes a camera's states."""

        def note(status: CameraStatus) -> None:
            with self._changed:
                reason = f" ({status.reason})" if status.reason else ""
                self._states[name] = status.state + reason

        return note

    def states(self) -> dict[str, str]:
        """How the cameras are."""
        with self._changed:
            return dict(self._states)
