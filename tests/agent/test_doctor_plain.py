"""The plain preprocessing in numpy, and that the pipeline's own gives the same."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.doctor_input import EQUAL_LEVELS, parity_levels
from agent.doctor_plain import plain_input, plain_picture
from engines.model import Resize
from tests.engines.graphs import info

sides = st.integers(1, 90)


@settings(deadline=None, max_examples=60)
@given(sides, sides, st.integers(1, 3), st.integers(1, 3), st.sampled_from(Resize), st.integers())
def test_the_pipelines_resizing_is_the_plain_one_to_one_level(high, wide, a, b, resize, seed):
    random = np.random.default_rng(abs(seed))
    picture = random.integers(0, 256, (high, wide, 3), np.uint8)
    model = replace(info(), width=32 * a, height=32 * b, resize=resize)
    assert parity_levels([picture], model) <= EQUAL_LEVELS


def test_a_letterboxed_picture_lies_in_the_middle_of_grey():
    picture = np.full((10, 40, 3), 200, np.uint8)
    canvas = plain_picture(picture, replace(info(), width=40, height=20))
    assert (canvas[:5] == 114).all()
    assert canvas[5:15] == pytest.approx(200)
    assert (canvas[15:] == 114).all()


def test_bilinear_weights_are_those_of_the_formula():
    # Four pixels from two: centres at -0.25, 0.25, 0.75, 1.25 of the old ones.
    picture = np.array([[0, 100]], np.uint8)[:, :, None].repeat(3, axis=2)
    model = replace(info(), width=4, height=1, resize=Resize.STRETCH)
    assert plain_picture(picture, model)[0, :, 0] == pytest.approx([0, 25, 75, 100])


def test_the_input_is_rgb_normalised_as_configured():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 255  # blue
    model = replace(info(), width=8, height=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5))
    image = plain_input(picture, model)
    assert image.shape == (1, 3, 8, 8)
    assert image.dtype == np.float32
    assert image[0, :, 0, 0].tolist() == [-1.0, -2.0, 1.0]


def test_a_model_that_takes_bytes_gets_bytes():
    picture = np.full((8, 8, 3), 77, np.uint8)
    model = replace(info(), input=replace(info().input, dtype=np.dtype(np.uint8)))
    assert plain_input(picture, model)[0, 0, 0, 0] == 77
