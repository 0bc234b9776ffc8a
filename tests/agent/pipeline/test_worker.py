from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agent.pipeline.intake import Ticket
from agent.pipeline.worker import Slot
from agent.vision.preprocess import Preprocessor, place
from engines.model import Resize
from tests.fakes.engine import FakeContext
from tests.fakes.frames import frame
from tests.fakes.model import SIZE, loaded


class WholeFrames(FakeContext):
    """Implements `engines.base.FrameContext`: prepares frames itself."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.inputs = {}
        self.written: list[tuple] = []

    def write_frame(self, index, pixels, source, target) -> None:
        self.written.append((index, pixels, source, target))


@pytest.mark.parametrize("resize", list(Resize))
def test_an_engine_that_prepares_frames_itself_gets_them_whole_with_the_same_windows(resize):
    model = loaded()
    model = dataclasses.replace(model, info=dataclasses.replace(model.info, resize=resize))
    model.engine.create_context = lambda batch: WholeFrames(model.engine, batch)
    slot = Slot(model, 2)
    given = frame("a", size=(48, 96))
    placement = slot.write(1, Ticket(given, 0, 0))
    assert placement == place(96, 48, SIZE, SIZE, resize)
    ((index, pixels, source, target),) = slot.context.written
    assert index == 1
    assert pixels is given.pixels
    # What lies inside the target comes from the source, what lies outside is border.
    marked = np.zeros((48, 96, 3), np.uint8)
    marked[source[1] : source[3], source[0] : source[2]] = 255
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    Preprocessor(resize, SIZE, SIZE).write(marked, out)
    left, top, right, bottom = target
    assert (out[top:bottom, left:right] == 255).all()
    out[top:bottom, left:right] = 114
    assert (out == 114).all()


def test_other_engines_get_them_prepared():
    model = loaded()
    slot = Slot(model, 2)
    white = frame("a", size=(48, 96))
    white = dataclasses.replace(white, pixels=np.full_like(white.pixels, 255))
    slot.write(1, Ticket(white, 0, 0))
    (images,) = slot.context.inputs.values()
    assert not images[0].any()
    assert (images[1, 8:24] == 255).all()
