"""Frames for tests, stamped by a clock that the test sets."""

from __future__ import annotations

import numpy as np

from agent.detection import Detections, ModelRef, Result, StageTimes
from agent.frame import Frame

MODEL = ModelRef("main", "fake", "sha256:00", "fake", "fp32", ("thing", "other"))


def frame(
    camera: str = "a", index: int = 0, *, ns: int = 0, size: tuple[int, int] = (4, 6)
) -> Frame:
    """A black frame of `size` (height, width)."""
    return Frame(np.zeros((*size, 3), np.uint8), camera, index, ns, ns / 1e9)


def result(of: Frame, detections: Detections | None = None) -> Result:
    """The result of analysing a frame."""
    return Result(
        camera=of.camera,
        frame_index=of.index,
        width=of.width,
        height=of.height,
        monotonic_ns=of.monotonic_ns,
        wall_s=of.wall_s,
        model=MODEL,
        detections=detections or Detections.empty(),
        times=StageTimes(1.0, 2.0, 3.0, 4.0, 10.0),
    )
