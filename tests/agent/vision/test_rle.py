from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.detection import Mask
from agent.errors import OutputError
from agent.vision.rle import decode, encode


@st.composite
def masks(draw):
    """A mask somewhere in a frame, with the frame's size."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    w, h = draw(st.integers(1, width - x)), draw(st.integers(1, height - y))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bits = rng.random((h, w)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return Mask(bits, x, y), width, height


def in_frame(mask, width, height):
    frame = np.zeros((height, width), bool)
    frame[mask.y : mask.y + mask.bits.shape[0], mask.x : mask.x + mask.bits.shape[1]] = mask.bits
    return frame


def by_hand(frame):
    """The format's definition, one pixel and one number at a time."""
    runs, value = [0], False
    for column in frame.T.tolist():
        for pixel in column:
            if pixel != value:
                runs.append(0)
                value = pixel
            runs[-1] += 1
    text = ""
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        while True:
            group = number & 31
            number >>= 5
            more = number != (-1 if group & 16 else 0)
            text += chr(group + 32 * more + 48)
            if not more:
                break
    return text


@given(masks())
def test_round_trip(case):
    mask, width, height = case
    np.testing.assert_array_equal(
        decode(encode(mask, width, height), width, height), in_frame(mask, width, height)
    )


@given(masks())
def test_equals_the_definition(case):
    mask, width, height = case
    assert encode(mask, width, height) == by_hand(in_frame(mask, width, height))


def test_hand_worked_vector():
    """A 4x3 frame with the pixels (1,0), (1,1), (2,1), (2,2) set; columns of 3 pixels.

    Column by column 000 110 011 000: runs 3 2 2 2 3, written as 3 2 2 (2-2) (3-2), each below 16
    and so one character from "0" on.
    """
    bits = np.array([[1, 0], [1, 1], [0, 1]], bool)
    assert encode(Mask(bits, 1, 0), 4, 3) == "32201"


def test_hand_worked_vector_with_long_runs():
    """A 100x100 frame, column 50 set: runs 5000 100 4900.

    5000 = 4*1024 + 28*32 + 8: groups 8 28 4, the first two marked (+32), the last below 16 as 4:
    40+48 "X", 60+48 "l", 4+48 "4". 100 = 3*32 + 4: 36+48 "T", 3+48 "3". 4900 = 4*1024 + 25*32 + 4:
    36+48 "T", 57+48 "i", 4+48 "4".
    """
    assert encode(Mask(np.ones((100, 1), bool), 50, 0), 100, 100) == "Xl4T3Ti4"


@given(st.text(max_size=60), st.integers(1, 30), st.integers(1, 30))
def test_any_text_is_a_mask_or_one_error(text, width, height):
    try:
        frame = decode(text, width, height)
    except OutputError:
        return
    assert frame.shape == (height, width)


@pytest.mark.parametrize("text", ["", "X", "32201" * 2, "o" * 200, "3\x00"])
def test_damaged_text_is_refused(text):
    with pytest.raises(OutputError, match="the mask is"):
        decode(text, 4, 3)
