from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.transform import as_bgr8, transform
from agent.config import CameraConfig
from agent.errors import CaptureError


def camera(**settings: object) -> CameraConfig:
    return CameraConfig.model_validate({"source": "0", **settings})


def numbered(height: int = 3, width: int = 5) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1)])
def test_grey_becomes_bgr(shape):
    grey = np.arange(15, dtype=np.uint8).reshape(shape)
    bgr = as_bgr8(grey)
    assert bgr.shape == (3, 5, 3)
    for channel in range(3):
        np.testing.assert_array_equal(bgr[..., channel], grey.reshape(3, 5))


def test_sixteen_bits_keep_their_upper_eight():
    assert as_bgr8(np.full((2, 2, 3), 0xAB12, np.uint16)).tolist() == [[[0xAB] * 3] * 2] * 2


def test_an_alpha_channel_is_dropped():
    bgra = np.dstack([numbered(), np.full((3, 5), 9, np.uint8)])
    np.testing.assert_array_equal(as_bgr8(bgra), numbered())


def test_a_strided_picture_becomes_contiguous_and_a_plain_one_is_not_copied():
    assert as_bgr8(numbered(6, 10)[::2, ::2]).flags.c_contiguous
    plain = numbered()
    assert as_bgr8(plain) is plain


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((3, 5, 2), np.uint8), "shape [3, 5, 2]"),
        (np.zeros((3, 5, 3), np.float32), "float32"),
        (np.zeros((2, 3, 5, 3), np.uint8), "grey, BGR or BGRA"),
        (np.zeros(7, np.uint8), "shape [7]"),
        (np.zeros((), np.uint8), "shape []"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_shape_and_type(pixels, said):
    with pytest.raises(CaptureError) as caught:
        as_bgr8(pixels)
    assert said in str(caught.value)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_clockwise(degrees):
    expected = np.rot90(numbered(), -degrees // 90)
    np.testing.assert_array_equal(transform(numbered(), camera(rotate=degrees)), expected)


def test_flips():
    for flip, expected in {
        "none": numbered(),
        "horizontal": numbered()[:, ::-1],
        "vertical": numbered()[::-1],
        "both": numbered()[::-1, ::-1],
    }.items():
        np.testing.assert_array_equal(transform(numbered(), camera(flip=flip)), expected)


def test_the_crop_is_taken_after_the_rotation():
    picture = transform(numbered(4, 8), camera(rotate=90, crop={"top": 0.5, "right": 0.75}))
    np.testing.assert_array_equal(picture, np.rot90(numbered(4, 8), -1)[4:, :3])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 0.99), st.floats(0, 0.99), st.data())
def test_a_crop_always_leaves_pixels(height, width, left, top, data):
    right = data.draw(st.floats(left, 1, exclude_min=True))
    bottom = data.draw(st.floats(top, 1, exclude_min=True))
    crop = {"left": left, "top": top, "right": right, "bottom": bottom}
    picture = transform(np.zeros((height, width, 3), np.uint8), camera(crop=crop))
    assert picture.size > 0
    assert picture.flags.c_contiguous
