from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.vision.preprocess import BORDER, Preprocessor, place
from engines.model import Resize

frame_side = st.integers(1, 4000)
input_side = st.integers(1, 1300)
resizes = st.sampled_from(list(Resize))
points = hnp.arrays(np.float32, (5, 4), elements=st.floats(-2000, 2000, width=32))


@given(st.tuples(frame_side, frame_side, input_side, input_side), resizes, points)
def test_mapping_inverts(sizes, resize, some):
    placement = place(*sizes, resize)
    back = placement.to_input(placement.to_frame(some))
    np.testing.assert_allclose(back, some, atol=0.01)


@given(frame_side, frame_side, input_side, input_side)
def test_letterboxed_frame_fills_one_direction_and_is_centred(width, height, in_w, in_h):
    placement = place(width, height, in_w, in_h, Resize.LETTERBOX)
    corners = placement.to_input(np.array([[0, 0, width, height]], np.float32))
    left, top, right, bottom = corners[0].tolist()
    assert min(abs(left) + abs(right - in_w), abs(top) + abs(bottom - in_h)) < 0.01
    assert abs(left - (in_w - right)) < 1.01
    assert abs(top - (in_h - bottom)) < 1.01


@given(frame_side, frame_side, input_side, input_side)
def test_stretched_frame_fills_the_input(width, height, in_w, in_h):
    placement = place(width, height, in_w, in_h, Resize.STRETCH)
    corners = placement.to_input(np.array([0, 0, width, height], np.float32))
    np.testing.assert_allclose(corners, [0, 0, in_w, in_h], atol=0.01)


@given(frame_side, frame_side, input_side, input_side)
def test_cropped_input_lies_in_the_middle_of_the_frame(width, height, in_w, in_h):
    placement = place(width, height, in_w, in_h, Resize.CENTER_CROP)
    corners = placement.to_frame(np.array([0, 0, in_w, in_h], np.float32))
    left, top, right, bottom = corners.tolist()
    assert left > -0.01
    assert top > -0.01
    assert abs(left - (width - right)) < 1.01
    assert abs(top - (height - bottom)) < 1.01
    assert min(left + width - right, top + height - bottom) < 0.01


def test_hand_worked_letterbox():
    placement = place(1280, 720, 640, 640, Resize.LETTERBOX)
    assert (placement.scale_x, placement.scale_y) == (0.5, 0.5)
    assert (placement.pad_x, placement.pad_y) == (0, 140)
    boxes = np.array([[0, 140, 640, 500], [320, 320, 330, 340]], np.float32)
    assert placement.to_frame(boxes).tolist() == [[0, 0, 1280, 720], [640, 360, 660, 400]]


def ramp(width, height):
    """A frame whose blue grows from left to right and green from top to bottom, 0 to 250."""
    frame = np.full((height, width, 3), 200, np.uint8)
    frame[..., 0] = np.linspace(0, 250, width)[None, :]
    frame[..., 1] = np.linspace(0, 250, height)[:, None]
    return frame


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize("size", [(320, 180), (90, 250), (64, 64), (33, 31), (1, 1), (5, 200)])
def test_pixels_lie_where_the_placement_says(resize, size):
    width, height = size
    frame = ramp(width, height)
    out = np.full((3, 64, 96, 3), 7, np.uint8)
    placement = Preprocessor(resize, 96, 64).write(frame, out[1])
    ys, xs = np.mgrid[0:64, 0:96] + 0.5
    places = placement.to_frame(np.stack([xs, ys], axis=-1))
    inside = ((places > 0) & (places < [width, height])).all(axis=-1)
    x, y = (np.clip(places - 0.5, 0, [width - 1, height - 1])).transpose(2, 0, 1)
    want = np.full((64, 96, 3), BORDER, float)
    want[inside] = 200
    want[..., 0] = np.where(inside, x * 250 / max(1, width - 1), BORDER)
    want[..., 1] = np.where(inside, y * 250 / max(1, height - 1), BORDER)
    # Values are rounded, and stay the same over the outer half of the outermost pixels.
    step = [250 / max(1, width - 1), 250 / max(1, height - 1), 0]
    assert (np.abs(out[1] - want) <= 2.5 + np.array(step) / 2).all()
    assert (out[0] == 7).all()
    assert (out[2] == 7).all()


def test_frames_of_other_sizes_leave_no_trace():
    preprocessor = Preprocessor(Resize.LETTERBOX, 96, 64)
    out = np.zeros((64, 96, 3), np.uint8)
    preprocessor.write(np.full((64, 96, 3), 255, np.uint8), out)
    preprocessor.write(np.full((200, 20, 3), 255, np.uint8), out)
    placement = preprocessor.write(np.zeros((20, 200, 3), np.uint8), out)
    top = round(placement.pad_y)
    assert (out[:top] == BORDER).all()
    assert (out[top : 64 - top] == 0).all()
    assert (out[64 - top :] == BORDER).all()


def test_view_into_a_larger_frame_is_read_in_place():
    frame = ramp(300, 200)
    view, out = frame[20:120, 50:250], np.zeros((2, 64, 64, 3), np.uint8)
    preprocessor = Preprocessor(Resize.LETTERBOX, 64, 64)
    preprocessor.write(view, out[0])
    preprocessor.write(np.ascontiguousarray(view), out[1])
    np.testing.assert_array_equal(out[0], out[1])


def test_fine_stripes_do_not_alias_in_a_classifiers_input():
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[:, ::2] = 255
    out = np.zeros((32, 32, 3), np.uint8)
    Preprocessor(Resize.CENTER_CROP, 32, 32).write(frame, out)
    assert np.abs(out.astype(int) - 127).max() <= 2
