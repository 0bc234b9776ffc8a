"""Where calibration pictures come from: a folder of picture files, or a video.

Both give numbered candidates; a caller reads those it has chosen, in order.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from agent.capture.base import PICTURE_SUFFIXES
from agent.capture.transform import as_bgr8
from agent.errors import CaptureError
from engines.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

HASH_BLOCK_BYTES = 1 << 20

MAX_VIDEO_FRAMES = 200_000
"""Frames of a video that are looked at, about two hours; each must be decoded to reach the next."""

GAP_S = 1.0
"""Frames of a video that are nearer to each other show almost the same."""

DEFAULT_FPS = 25.0
"""Where a video does not tell its rate."""

PIXEL_MAX = 255.0

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_SCAN = 0xDA
"""Marker of the segment that the compressed picture follows."""


class PictureSource(Protocol):
    """Numbered candidates for pictures."""

    @property
    def count(self) -> int:
        """How many candidates there are."""

    @property
    def gap(self) -> int:
        """Candidates that are nearer to each other than this show almost the same."""

    def key(self, index: int) -> str:
        """What ground truth calls a candidate: a file's name, or a frame's number."""

    def hash(self, update: Callable[[bytes], None], chosen: Sequence[int]) -> None:
        """Give the content of the chosen candidates to a digest.

        Raises:
            CalibrationError: a file cannot be read.
        """

    def read(self, chosen: Sequence[int]) -> Iterator[NDArray[np.uint8] | str]:
        """Decode the chosen candidates, which are in rising order.

        Yields:
            BGR [h, w, 3] for each, or the reason why it cannot be used.
        """


def open_source(path: Path) -> PictureSource:
    """Find the candidates.

    Raises:
        CalibrationError: there are none.
    """
    try:
        if path.is_dir():
            return FolderSource(path)
        path.open("rb").close()
    except OSError as error:
        raise CalibrationError(
            f"pictures {path}: {(error.strerror or 'cannot be read').lower()}; "
            "give a folder of pictures or a video"
        ) from error
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise CalibrationError(
            f"pictures {path}: one picture is not enough; give the folder it lies in, or a video"
        )
    return VideoSource(path)


class FolderSource:
    """The pictures that lie in a folder itself, not below it, in order of their names.

    Args:
        path: the folder.

    Raises:
        CalibrationError: it holds no pictures.
        OSError: it cannot be read.
    """

    gap = 0

    def __init__(self, path: Path) -> None:
        self._paths = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if not self._paths:
            known = ", ".join(sorted(PICTURE_SUFFIXES))
            raise CalibrationError(
                f"pictures {path}: no pictures there ({known}); folders below it are not searched"
            )

    @property
    def count(self) -> int:
        """See `PictureSource`."""
        return len(self._paths)

    def key(self, index: int) -> str:
        """See `PictureSource`."""
        return self._paths[index].name

    def hash(self, update: Callable[[bytes], None], chosen: Sequence[int]) -> None:
        """See `PictureSource`."""
        for index in chosen:
            _hash_file(self._paths[index], update)

    def read(self, chosen: Sequence[int]) -> Iterator[NDArray[np.uint8] | str]:
        """See `PictureSource`."""
        for index in chosen:
            try:
                yield decode(self._paths[index].read_bytes())
            except OSError as error:
                yield (error.strerror or "cannot be read").lower()
            except CaptureError as error:
                yield str(error)


class VideoSource:
    """The frames of a video.

    Args:
        path: the file.

    Raises:
        CalibrationError: OpenCV cannot read it as a video.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        try:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            fps = float(capture.get(cv2.CAP_PROP_FPS))
            if count <= 0:  # a stream that was saved as it came does not know its length
                count = 0
                while count < MAX_VIDEO_FRAMES and capture.grab():
                    count += 1
        finally:
            capture.release()
        if count > MAX_VIDEO_FRAMES:
            log.warning(
                "%s has %d frames; pictures are taken of the first %d",
                path,
                count,
                MAX_VIDEO_FRAMES,
            )
        self.count = min(count, MAX_VIDEO_FRAMES)
        self.gap = max(1, round(GAP_S * (fps if fps > 0 else DEFAULT_FPS)))

    def key(self, index: int) -> str:
        """See `PictureSource`."""
        return str(index)

    def hash(self, update: Callable[[bytes], None], chosen: Sequence[int]) -> None:  # noqa: ARG002 - a frame's bytes depend on those before it
        """See `PictureSource`; of the whole file."""
        _hash_file(self._path, update)

    def read(self, chosen: Sequence[int]) -> Iterator[NDArray[np.uint8] | str]:
        """See `PictureSource`.

        Frames are decoded in sequence: seeking is not exact to the frame in every container.
        """
        capture = self._open()
        position = 0
        try:
            for index in chosen:
                while position < index and capture.grab():
                    position += 1
                pixels = capture.read()[1] if position == index else None
                if pixels is None:
                    yield "the video has no such frame"
                    continue
                position += 1
                yield as_bgr8(pixels)
        finally:
            capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            capture.release()
            raise CalibrationError(
                f"pictures {self._path}: neither a folder nor a video that OpenCV can read"
            )
        return capture


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a picture file as the agent's capture does.

    Floating-point pictures are taken as 0..1.

    Returns:
        BGR [h, w, 3].

    Raises:
        CaptureError: it is no picture, cut off, or has values that are not finite.
    """
    if content.startswith(JPEG_START) and not _is_whole_jpeg(content):
        raise CaptureError("the file is cut off")
    pixels: NDArray[Any] | None = None
    if content:
        try:
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise CaptureError(f"OpenCV cannot read it: {error.err}") from error
    if pixels is None:
        raise CaptureError("not a picture that OpenCV can read")
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all():
            raise CaptureError("it has values that are NaN or infinite")
        pixels = np.rint(np.clip(pixels, 0, 1) * PIXEL_MAX).astype(np.uint8)
    return as_bgr8(pixels)


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether the end of the picture comes after its data; OpenCV 4 fills up what is missing.

    Segments as in ITU-T T.81, B.1: a marker, then a length of two bytes that counts itself. A
    preview in a segment has an end of its own, so segments are stepped over.
    """
    place = len(JPEG_START)
    while place + 4 <= len(content) and content[place] == JPEG_START[0]:
        if content[place + 1] == JPEG_SCAN:
            return content.find(JPEG_END, place) >= 0
        if content[place + 1] == JPEG_START[0]:  # fill bytes may precede a marker
            place += 1
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return False


def _hash_file(path: Path, update: Callable[[bytes], None]) -> None:
    try:
        with path.open("rb") as file:
            size = 0
            while block := file.read(HASH_BLOCK_BYTES):
                update(block)
                size += len(block)
    except OSError as error:
        raise CalibrationError(
            f"pictures {path}: {(error.strerror or 'cannot be read').lower()}"
        ) from error
    # Without the length, bytes moved from one file to the next would not be noticed.
    update(size.to_bytes(8, "big"))
