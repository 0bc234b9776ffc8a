"""The folder that collected pictures go to: numbered, private, each file whole or not there."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import cv2

from agent.errors import ConfigError
from engines.durable import sync_folder, write_new

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

JPEG_QUALITY = 95
"""Cameras have compressed their pictures already, harder than this does again. It moves a sample by
one grey level on average, half an int8 step of the input; PNG would be exact, at five times the
size (measured on the example's video)."""

FOLDER_MODE = 0o700
"""Pictures of cameras are personal data: only their owner may look at them."""

NUMBERED = re.compile(r"(\d{6,9})-.*\.jpg", re.ASCII)

PART = ".part-"
"""Begins the name of a file that is being written."""


class PictureFolder:
    """Writes pictures as `NUMBER-CAMERA.jpg`, in the order they were kept.

    A new folder gets mode 0700, one that exists keeps its mode; files get 0600. Numbering goes on
    after what is there, and what an interrupted run left half written is removed.

    Args:
        path: the folder; made if it does not exist.

    Raises:
        ConfigError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            names = [entry.name for entry in path.iterdir()]
            for name in names:
                if name.startswith(PART):
                    (path / name).unlink()
            numbered = [match for name in names if (match := NUMBERED.fullmatch(name))]
            self.number = max((int(match[1]) for match in numbered), default=-1) + 1
            self.bytes = sum((path / match[0]).stat().st_size for match in numbered)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, camera: str, pixels: NDArray[np.uint8], room: int) -> bool:
        """Keep a picture.

        Args:
            camera: whose.
            pixels: BGR [h, w, 3].
            room: bytes that it may have at the most.

        Returns:
            False if it has more.

        Raises:
            ConfigError: the disk refuses; nothing of the picture stays.
        """
        content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        if content.nbytes > room:
            return False
        part = self._path / f"{PART}{self.number:06d}"
        try:
            write_new(part, content.tobytes())
            try:
                part.rename(self._path / f"{self.number:06d}-{camera}.jpg")
            except OSError:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
            sync_folder(self._path)
        except OSError as error:
            raise self._refused(error) from error
        self.number += 1
        self.bytes += content.nbytes
        return True

    def _refused(self, error: OSError) -> ConfigError:
        reason = (error.strerror or type(error).__name__).lower()
        return ConfigError(
            f"--out {self._path}: pictures cannot be written: {reason}; "
            "what was written before is whole. Give it room and write permission, or another folder"
        )
