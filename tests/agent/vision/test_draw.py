from __future__ import annotations

import numpy as np
import pytest

from agent.detection import Detections, Mask
from agent.vision.draw import annotate

NAMES = ["parcel", "größe", "x" * 200]


def found(boxes, **parts):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.3, len(boxes)).astype(np.float32)
    return Detections(boxes, scores, np.arange(len(boxes), dtype=np.int32), **parts)


def picture(width=320, height=240):
    return np.full((height, width, 3), 60, np.uint8)


def test_nothing_found_is_a_copy():
    frame = picture()
    drawn = annotate(frame, Detections.empty(), NAMES)
    np.testing.assert_array_equal(drawn, frame)
    assert drawn is not frame


def test_frame_is_not_written():
    frame = picture()
    frame.setflags(write=False)
    drawn = annotate(frame, found([[50, 50, 100, 100]]), NAMES)
    assert (frame == 60).all()
    assert drawn.flags.writeable


def test_box_is_drawn_on_its_edge_and_not_inside():
    drawn = annotate(picture(), found([[50, 60, 150, 160]]), NAMES)
    changed = (drawn != 60).any(axis=2)
    assert changed[60:160, 50].all()
    assert changed[60:160, 150].all()
    assert changed[160, 50:150].all()
    assert not changed[70:150, 60:140].any()
    assert not changed[170:].any()


def test_mask_tints_its_pixels_only():
    bits = np.zeros((100, 100), bool)
    bits[20:50, 20:50] = True
    boxes = found([[50, 60, 150, 160]])
    masked = found([[50, 60, 150, 160]], masks=(Mask(bits, 50, 60),))
    changed = (annotate(picture(), masked, NAMES) != annotate(picture(), boxes, NAMES)).any(axis=2)
    want = np.zeros((240, 320), bool)
    want[80:110, 70:100] = True
    np.testing.assert_array_equal(changed, want)


def test_visible_keypoints_are_drawn_and_others_not():
    points = np.array([[[100, 100, 0.9], [130, 130, 0.1]]], np.float32)
    drawn = annotate(picture(), found([[50, 60, 150, 160]], keypoints=points), NAMES)
    assert (drawn[100, 100] != 60).any()
    assert (drawn[130, 130] == 60).all()


def test_rotated_box_is_drawn_turned():
    rotated = np.array([[160, 120, 100, 40, np.pi / 4]], np.float32)
    drawn = annotate(picture(), found([[110, 70, 210, 170]], rotated=rotated), NAMES)
    changed = (drawn != 60).any(axis=2)
    along = np.array([160, 120]) + np.array([1, 1]) / np.sqrt(2) * 50
    x, y = along.round().astype(int)
    assert changed[y - 2 : y + 3, x - 2 : x + 3].any()
    assert not changed[165, 115:130].any()


def test_classes_of_the_whole_picture_are_listed():
    drawn = annotate(picture(), found([[0, 0, 320, 240]] * 3), NAMES)
    changed = (drawn != 60).any(axis=2)
    assert changed[:20, :20].all()
    assert not changed[100:].any()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (16, 16), (4000, 3000)])
def test_any_size_and_any_place_can_be_drawn(size):
    width, height = size
    boxes = [[0, 0, width, height], [0, 0, 1, 1], [width - 1, height - 1, width, height]]
    drawn = annotate(picture(width, height), found(boxes), NAMES)
    assert drawn.shape == (height, width, 3)


def test_class_without_a_name_shows_its_number():
    assert (annotate(picture(), found([[50, 60, 90, 90]]), []) != 60).any()
