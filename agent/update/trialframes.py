"""Live frames, with what the active model found in them, on their way into a trial's process.

They go through a pipe, so that no picture touches a disk: a line of JSON, then the pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.detection import Detections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from agent.detection import Result
    from agent.frame import Frame
    from agent.pipeline.tap import Tap

MAX_FRAME_BYTES = 256 * 2**20
"""Larger than any camera's picture."""

MAX_HEADER_BYTES = 8 * 2**20
"""A frame of ten thousand objects takes a megabyte."""

LOOK_S = 0.2
"""How often it is looked whether the feeding is to end, while there are no frames."""

CHANNELS = 3


@dataclass(frozen=True, slots=True)
class Dose:
    """How many frames are shown.

    Attributes:
        seconds: for so long.
        period_s: one at most so often.
        least: if there were fewer after `seconds`, more are waited for.
        patience_s: so long at the most.
        most: not more than this.
        most_bytes: nor more than this.
    """

    seconds: float
    period_s: float
    least: int = 0
    patience_s: float = 0.0
    most: int = 2**31
    most_bytes: int = 2**62


class Feeding:
    """Passes frames from a tap into a pipe, in a thread; use as a context around the process.

    Args:
        tap: of the model that serves; None where no camera uses it.
        dose: how many.
        clock: monotonic seconds.

    Attributes:
        reading: the descriptor that the process inherits.
        shown: frames that were passed on.
    """

    def __init__(
        self, tap: Tap | None, dose: Dose, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.reading, self._writing = os.pipe()
        self.shown = 0
        self._tap = tap
        self._dose = dose
        self._clock = clock
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trial-frames", daemon=True)

    def __enter__(self) -> Feeding:  # noqa: PYI034 - Self is not in Python 3.10
        if self._tap is not None:
            self._tap.open(self._dose.period_s)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        if self._tap is not None:
            self._tap.close()
        # Nobody reads any more: a write that waits ends with BrokenPipeError.
        os.close(self.reading)
        self._thread.join()

    def _run(self) -> None:
        with os.fdopen(self._writing, "wb") as stream, contextlib.suppress(BrokenPipeError):
            sent = 0
            for frame, result in self._frames():
                sent += frame.pixels.nbytes
                if sent > self._dose.most_bytes:
                    return
                write_frame(stream, frame, result)
                self.shown += 1

    def _frames(self) -> Iterator[tuple[Frame, Result]]:
        if self._tap is None:
            return
        began = self._clock()
        while self.shown < self._dose.most and not self._ending.is_set():
            dose = self._dose
            patience_s = dose.patience_s if self.shown < dose.least else 0.0
            left_s = began + dose.seconds + patience_s - self._clock()
            if left_s <= 0:
                return
            found = self._tap.take(min(LOOK_S, left_s))
            if found is not None:
                yield found


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """What comes out of the pipe.

    Attributes:
        camera: name of the camera.
        pixels: BGR, uint8, [height, width, 3].
        found: what the active model found.
    """

    camera: str
    pixels: NDArray[np.uint8]
    found: Detections


def write_frame(stream: BinaryIO, frame: Frame, result: Result) -> None:
    """Write one frame.

    Raises:
        BrokenPipeError: nobody reads.
    """
    found = result.detections
    header = {
        "camera": frame.camera,
        "shape": list(frame.pixels.shape),
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "class_ids": found.class_ids.tolist(),
        "rotated": None if found.rotated is None else found.rotated.tolist(),
    }
    stream.write(json.dumps(header).encode() + b"\n")
    stream.write(np.ascontiguousarray(frame.pixels).data)
    stream.flush()


def read_frames(stream: BinaryIO) -> Iterator[LiveFrame]:
    """Read frames until the writer is done; the last may be cut off, and is left out."""
    while line := stream.readline(MAX_HEADER_BYTES):
        header = json.loads(line) if line.endswith(b"\n") else None
        if header is None:
            return
        height, width, channels = (int(size) for size in header["shape"])
        size = height * width * channels
        if channels != CHANNELS or not 0 < size <= MAX_FRAME_BYTES:
            raise ValueError(f"a frame of shape {header['shape']}")
        pixels = stream.read(size)
        if len(pixels) < size:
            return
        array = np.frombuffer(pixels, np.uint8).reshape(height, width, channels)
        yield LiveFrame(str(header["camera"]), array, _detections(header))


def _detections(header: dict[str, Any]) -> Detections:
    rotated = header["rotated"]
    return Detections(
        boxes=np.array(header["boxes"], np.float32).reshape(-1, 4),
        scores=np.array(header["scores"], np.float32),
        class_ids=np.array(header["class_ids"], np.int32),
        rotated=None if rotated is None else np.array(rotated, np.float32).reshape(-1, 5),
    )
