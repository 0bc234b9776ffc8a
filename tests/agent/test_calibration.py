from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from agent.calibration import (
    MIN_PICTURES,
    Picture,
    pictures,
    pictures_digest,
    placed,
    probe_pictures,
)
from agent.vision.preprocess import Preprocessor
from engines.describe import describe
from engines.errors import CalibrationError
from engines.model import Resize
from tests.vectors.faults import MODEL, SAMPLE

INFO = describe(MODEL)
LIMIT = 64


def fill(folder, count: int, *, start: int = 0, flat: bool = False):
    random = np.random.default_rng(start)
    for number in range(start, start + count):
        height, width = (48, 64) if number % 2 else (64, 48)
        pixels = random.integers(0, 255, (height, width, 3), np.uint8)
        if flat:
            pixels[:] = number
        cv2.imwrite(str(folder / f"{number:04d}.png"), pixels)
    return folder


def test_pictures_of_a_folder_are_prepared_as_the_pipeline_does(tmp_path):
    calibration, held_out = pictures(fill(tmp_path, 24), INFO, LIMIT)
    assert (len(calibration), len(held_out)) == (16, 8)
    assert not set(calibration.keys) & set(held_out.keys)
    preprocessor = Preprocessor(INFO.resize, INFO.width, INFO.height)
    for picture in held_out.placed():
        expected = np.empty((INFO.height, INFO.width, 3), np.uint8)
        original = cv2.imread(str(tmp_path / picture.key))
        assert picture.placement == preprocessor.write(original, expected)
        np.testing.assert_array_equal(picture.pixels, expected)


def test_frames_of_a_video_are_held_out_in_runs():
    calibration, held_out = pictures(SAMPLE, INFO, 256)
    assert (len(calibration), len(held_out)) == (256, 64)
    frames = np.array([int(key) for key in held_out.keys])
    assert np.abs(np.subtract.outer([int(k) for k in calibration.keys], frames)).min() > 1
    assert sum(np.diff(frames) > 10) == 7


def test_sets_can_be_gone_through_again(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.calibration.KEPT_BYTES", 3 * 320 * 320 * 3)
    calibration, _ = pictures(fill(tmp_path, 24), INFO, LIMIT)
    first, second = ([p.copy() for p in calibration] for _ in range(2))
    assert len(first) == len(calibration)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_picture_that_goes_while_it_is_needed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.calibration.KEPT_BYTES", 0)
    calibration, _ = pictures(fill(tmp_path, 24), INFO, LIMIT)
    (tmp_path / calibration.keys[3]).unlink()
    with pytest.raises(CalibrationError, match=r"cannot be read any more.*leave the pictures"):
        list(calibration)


def test_pictures_cannot_be_written_to(tmp_path):
    calibration, _ = pictures(fill(tmp_path, 24), INFO, LIMIT)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(calibration))[0, 0] = 0


def test_the_same_pictures_are_prepared_for_another_model(tmp_path):
    _, held_out = pictures(fill(tmp_path, 24), INFO, LIMIT)
    other = replace(INFO, resize=Resize.STRETCH, width=64, height=32)
    prepared = held_out.prepared_for(other)
    assert prepared.keys == held_out.keys
    assert prepared.digest != held_out.digest
    assert {p.shape for p in prepared} == {(32, 64, 3)}
    few = held_out.prepared_for(INFO, 3)
    assert len(few) == 3
    assert set(few.keys) < set(held_out.keys)


# -- unusable pictures ---------------------------------------------------------------------------


def test_broken_pictures_among_good_ones_are_counted_and_named(tmp_path, caplog):
    fill(tmp_path, 24)
    (tmp_path / "0003.png").write_bytes(b"no picture")
    calibration, held_out = pictures(tmp_path, INFO, LIMIT)
    assert len(calibration) + len(held_out) == 23
    assert "1 cannot be used: 0003.png: not a picture" in caplog.text


def test_too_few_pictures_are_an_error(tmp_path):
    fill(tmp_path, MIN_PICTURES - 1)
    with pytest.raises(CalibrationError, match=r"11 of 11 can be used; at least 12 are needed"):
        pictures(tmp_path, INFO, LIMIT)


def test_more_broken_than_good_ones_are_an_error(tmp_path):
    fill(tmp_path, 20)
    for number in range(22):
        (tmp_path / f"x{number}.jpg").write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"only 20 of 42 .*x0.jpg: .*and 17 more"):
        pictures(tmp_path, INFO, 256)


def test_pictures_with_nan_are_unusable(tmp_path):
    fill(tmp_path, 16)
    bad = np.full((8, 8, 3), np.nan, np.float32)
    cv2.imwrite(str(tmp_path / "nan.tiff"), bad)
    calibration, held_out = pictures(tmp_path, INFO, LIMIT)
    assert "nan.tiff" not in (*calibration.keys, *held_out.keys)
    assert len(calibration) + len(held_out) == 16


def test_pictures_of_one_colour_each_are_an_error(tmp_path):
    fill(tmp_path, 20, flat=True)
    with pytest.raises(CalibrationError, match="one colour only"):
        pictures(tmp_path, INFO, LIMIT)


def test_a_detail_that_is_missed_by_the_first_look_is_no_single_colour(tmp_path):
    fill(tmp_path, 19, flat=True)
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[3, 3] = 255
    cv2.imwrite(str(tmp_path / "0019.png"), pixels)
    calibration, held_out = pictures(tmp_path, INFO, LIMIT)
    assert len(calibration) + len(held_out) == 20


# -- digests -------------------------------------------------------------------------------------


def test_a_digest_follows_from_content_and_choice(tmp_path):
    fill(tmp_path, 24)
    first = pictures_digest(tmp_path, INFO, LIMIT)
    assert first == pictures_digest(tmp_path, INFO, LIMIT)
    assert first.startswith("sha256:")
    others = {
        pictures_digest(tmp_path, INFO, LIMIT + 1),
        pictures_digest(tmp_path, replace(INFO, width=352), LIMIT),
        pictures_digest(tmp_path, replace(INFO, resize=Resize.STRETCH), LIMIT),
    }
    content = bytearray((tmp_path / "0012.png").read_bytes())
    content[-1] ^= 1
    (tmp_path / "0012.png").write_bytes(content)
    others.add(pictures_digest(tmp_path, INFO, LIMIT))
    fill(tmp_path, 1, start=24)
    others.add(pictures_digest(tmp_path, INFO, LIMIT))
    assert len(others) == 5
    assert first not in others


def test_both_sets_have_digests_of_their_own(tmp_path):
    calibration, held_out = pictures(fill(tmp_path, 24), INFO, LIMIT)
    again, _ = pictures(tmp_path, INFO, LIMIT)
    assert calibration.digest == again.digest != held_out.digest


def test_a_digest_costs_no_decoding(tmp_path):
    block = np.random.default_rng(0).bytes(200_000)
    for number in range(500):
        (tmp_path / f"{number}.jpg").write_bytes(block)
    began = time.perf_counter()
    pictures_digest(tmp_path, INFO, 4096)
    pictures_digest(SAMPLE, INFO, 256)
    assert time.perf_counter() - began < 1.0


# -- synthetic pictures --------------------------------------------------------------------------


def test_synthetic_pictures_are_always_the_same_and_structured():
    first, again = probe_pictures(INFO), probe_pictures(INFO)
    assert first.digest == again.digest
    assert first.digest != probe_pictures(replace(INFO, width=352)).digest
    assert len(first) == len(list(first)) > 0
    for picture in first:
        assert (picture.shape, picture.dtype) == ((320, 320, 3), np.uint8)
        steps = np.abs(np.diff(picture.astype(np.int16), axis=1))
        # Most neighbours are alike, some are not: surfaces with edges.
        assert np.median(steps) < 10
        assert steps.max() > 50


def test_pictures_without_a_placement_are_taken_as_they_are():
    found = list(placed(probe_pictures(INFO), INFO))
    assert all(isinstance(picture, Picture) for picture in found)
    box = np.float32([[10, 20, 30, 40]])
    np.testing.assert_array_equal(found[0].placement.to_frame(box), box)
