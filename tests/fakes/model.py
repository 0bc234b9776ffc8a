"""A loaded model around a fake engine: a two-class detector of YOLO layout at 32x32."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from agent.pipeline.worker import LoadedModel
from agent.vision.decode import Decoder, PostprocessSettings
from engines.base import TensorSpec
from engines.model import Layout, ModelInfo, Resize, Task
from tests.fakes.engine import FakeEngine, Infer
from tests.fakes.frames import MODEL

SIZE = 32
BOXES = 8


def one_box(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One object of class 1 in the middle of every image, scored by the image's first pixel."""
    output = np.zeros((len(images), 6, BOXES), np.float32)
    output[:, :4, 0] = (16, 16, 8, 8)
    output[:, 5, 0] = 0.5 + images[:, 16, 16, 0] / 1000
    return output


def loaded(
    function: Infer = one_box,
    *,
    lanes: int = 1,
    batch: int = 1,
    max_batch: int | None = None,
    precision: str = "fp32",
) -> LoadedModel:
    engine = FakeEngine(function, SIZE, lanes, BOXES)
    info = ModelInfo(
        name="fake",
        digest="sha256:00",
        task=Task.DETECT,
        layout=Layout.YOLO,
        names=("thing", "other"),
        input=TensorSpec("images", (None, 3, SIZE, SIZE), np.dtype(np.float32)),
        outputs=engine.outputs,
        height=SIZE,
        width=SIZE,
        max_batch=max_batch,
        resize=Resize.LETTERBOX,
    )
    ref = dataclasses.replace(MODEL, precision=precision)
    return LoadedModel(ref, info, engine, Decoder(info, PostprocessSettings()), batch)
