"""Pictures as cameras give them, for the tools: read from a file, a folder or a video, or drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.capture.base import PICTURE_SUFFIXES
from agent.errors import CaptureError
from agent.picturesource import decode, open_source
from engines.base import FrameContext
from engines.errors import CalibrationError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.vision.preprocess import Placement, Preprocessor
    from engines.base import Context

BENCH_SIZE = (1280, 720)
"""Width and height of the drawn picture, pixels: what most cameras give."""

SHAPES = 60
NOISE = 6.0
"""Standard deviation in grey levels, about that of a camera by day."""


def read_pictures(path: Path, limit: int) -> list[NDArray[np.uint8]]:
    """Read pictures, spread evenly over a folder or a video.

    Args:
        path: one picture, a folder of pictures, or a video.
        limit: pictures at the most.

    Returns:
        BGR, uint8, [h, w, 3]; unreadable ones are left out.

    Raises:
        CalibrationError: there are none, or none can be read.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir():
        try:
            return [decode(path.read_bytes())]
        except OSError as error:
            raise CalibrationError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except CaptureError as error:
            raise CalibrationError(f"{path}: {error}; give another picture") from error
    source = open_source(path)
    count = min(limit, source.count)
    chosen = [(2 * i + 1) * source.count // (2 * count) for i in range(count)]
    found = list(source.read(chosen))
    good = [pixels for pixels in found if not isinstance(pixels, str)]
    if not good:
        reasons = sorted({reason for reason in found if isinstance(reason, str)})
        raise CalibrationError(f"{path}: no picture can be read: {'; '.join(reasons)}")
    return good


def bench_picture(path: Path | None) -> NDArray[np.uint8]:
    """The picture that speed is measured with: the one given, or a drawn one.

    Raises:
        CalibrationError: it cannot be read.
    """
    return drawn() if path is None else read_pictures(path, 1)[0]


def drawn() -> NDArray[np.uint8]:
    """Rectangles and noise on shaded ground; always the same.

    Returns:
        BGR, uint8, [720, 1280, 3].
    """
    width, height = BENCH_SIZE
    random = np.random.default_rng(0)
    ground = random.integers(60, 200, (2, 2, 3)).astype(np.uint8)
    picture = cv2.resize(ground, BENCH_SIZE, interpolation=cv2.INTER_LINEAR)
    for _ in range(SHAPES):
        x, y = int(random.integers(width)), int(random.integers(height))
        w, h = (int(value) for value in random.integers(8, 160, 2))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
    noisy = picture + random.normal(0, NOISE, picture.shape)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def fill(
    context: Context, index: int, picture: NDArray[np.uint8], preprocessor: Preprocessor
) -> Placement:
    """Bring a picture into place `index` of a context's batch, as the pipeline does.

    Returns:
        How it lies there.

    Raises:
        InferenceError: the engine prepares pictures itself, and failed.
    """
    if isinstance(context, FrameContext):
        window, placement = preprocessor.fit(picture.shape[1], picture.shape[0])
        context.write_frame(index, picture, window.source, window.target)
        return placement
    (images,) = context.inputs.values()
    return preprocessor.write(picture, images[index])
