"""Live frames on their way into a trial's process."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest

from agent.detection import Detections
from agent.frame import Frame
from agent.pipeline.tap import Tap
from agent.update.trialframes import Dose, Feeding, read_frames, write_frame
from tests.fakes.frames import result

SOON_S = 20.0


def shown(index: int = 0, shape: tuple[int, int] = (6, 4), rotated: bool = False):
    random = np.random.default_rng(index)
    pixels = random.integers(0, 256, (*shape, 3), np.uint8)
    frame = Frame(pixels, "belt", index, 0, 0.0)
    found = Detections(
        boxes=random.uniform(0, 4, (2, 4)).astype(np.float32),
        scores=np.array([0.9, 0.3], np.float32),
        class_ids=np.array([1, 0], np.int32),
        rotated=random.uniform(0, 1, (2, 5)).astype(np.float32) if rotated else None,
    )
    return frame, result(frame, found)


@pytest.mark.parametrize("rotated", [False, True])
def test_frames_and_what_was_found_in_them_come_out_as_they_went_in(rotated):
    stream = io.BytesIO()
    given = [shown(0, rotated=rotated), shown(1, (3, 9), rotated)]
    for frame, found in given:
        write_frame(stream, frame, found)
    stream.seek(0)
    read = list(read_frames(stream))
    assert len(read) == 2
    for (frame, found), out in zip(given, read, strict=True):
        assert out.camera == "belt"
        assert np.array_equal(out.pixels, frame.pixels)
        assert np.array_equal(out.found.boxes, found.detections.boxes)
        assert np.array_equal(out.found.scores, found.detections.scores)
        assert np.array_equal(out.found.class_ids, found.detections.class_ids)
        assert (out.found.rotated is None) is not rotated


def test_a_frame_without_objects_has_arrays_of_the_right_shape():
    stream = io.BytesIO()
    frame, _ = shown()
    write_frame(stream, frame, result(frame))
    stream.seek(0)
    (read,) = read_frames(stream)
    assert read.found.boxes.shape == (0, 4)
    assert len(read.found) == 0


def test_a_frame_that_is_cut_off_is_left_out():
    stream = io.BytesIO()
    for index in range(2):
        write_frame(stream, *shown(index))
    content = stream.getvalue()
    half = len(content) // 2
    for cut in (1, 30, half - 1):
        assert len(list(read_frames(io.BytesIO(content[:-cut])))) == 1
    assert list(read_frames(io.BytesIO(content[: half // 4]))) == []


def test_a_shape_that_no_camera_gives_is_refused():
    with pytest.raises(ValueError, match="shape"):
        list(read_frames(io.BytesIO(b'{"shape": [1000000, 1000000, 3]}\n')))


class Clock:
    """Moves on when it is looked at, so that nothing waits."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


class Scripted(Tap):
    """A tap that gives what a test says, and counts how often it was asked."""

    def __init__(self, frames) -> None:
        super().__init__()
        self.frames = list(frames)
        self.asked = 0

    def take(self, timeout_s):
        self.asked += 1
        return self.frames.pop(0) if self.frames else None


def fed(tap: Tap | None, dose: Dose, clock: Clock) -> int:
    """How many frames come through."""
    with Feeding(tap, dose, clock) as feeding, os.fdopen(os.dup(feeding.reading), "rb") as stream:
        count = len(list(read_frames(stream)))
        assert feeding.shown == count
        return count


def test_it_ends_after_its_time_its_number_or_its_size():
    many = [shown(index) for index in range(50)]
    assert fed(Scripted(many), Dose(10.0, 0.5), Clock(1.0)) == 9
    assert fed(Scripted(many), Dose(1000.0, 0.5, most=3), Clock(1.0)) == 3
    assert fed(Scripted(many), Dose(1000.0, 0.5, most_bytes=2 * 6 * 4 * 3), Clock(1.0)) == 2


def test_a_camera_that_is_away_is_waited_for_but_not_for_ever():
    tap = Scripted([])
    assert fed(tap, Dose(10.0, 0.5, least=2, patience_s=20.0), Clock(1.0)) == 0
    assert tap.asked == 29
    late = Scripted([None] * 15 + [shown(index) for index in range(9)])
    # After the second one there are enough, and the time is over.
    assert fed(late, Dose(10.0, 0.5, least=2, patience_s=20.0), Clock(1.0)) == 2


def test_without_a_camera_there_is_an_end_at_once():
    assert fed(None, Dose(1000.0, 0.5), Clock(0.0)) == 0


def test_a_reader_that_dies_holds_nobody_up():
    big = [shown(index, (400, 400)) for index in range(8)]
    with Feeding(Scripted(big), Dose(1000.0, 0.0), Clock(0.0)):
        pass
    assert "trial-frames" not in {thread.name for thread in threading.enumerate()}
