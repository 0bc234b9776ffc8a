from __future__ import annotations

import cv2
import numpy as np
import pytest

from agent.errors import CaptureError
from agent.picturesource import VideoSource, decode, open_source
from engines.errors import CalibrationError
from tests.vectors.faults import SAMPLE

PICTURE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)


def encoded(suffix: str, pixels=PICTURE) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_pictures_are_read_as_they_were_written(suffix):
    np.testing.assert_array_equal(decode(encoded(suffix)), PICTURE)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_picture_that_is_cut_off_is_refused(suffix, share):
    content = encoded(suffix)
    with pytest.raises(CaptureError):
        decode(content[: int(len(content) * share)])


def test_a_preview_inside_does_not_make_a_cut_off_jpeg_whole():
    content = encoded(".jpg")
    preview = b"\xff\xe1" + (2 + len(content)).to_bytes(2, "big") + content
    with_preview = content[:2] + preview + content[2:]
    assert decode(with_preview).shape == PICTURE.shape
    with pytest.raises(CaptureError, match="cut off"):
        decode(with_preview[:-30])


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8", b"\xff\xd8\xff\xd9", bytes(1000)])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(CaptureError):
        decode(content)


def test_grey_deep_and_transparent_pictures_become_bgr():
    grey = decode(encoded(".png", PICTURE[..., 0]))
    np.testing.assert_array_equal(grey[..., 2], PICTURE[..., 0])
    deep = decode(encoded(".png", PICTURE.astype(np.uint16) << 8))
    np.testing.assert_array_equal(deep, PICTURE)
    alpha = np.dstack([PICTURE, np.full((24, 32), 9, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(".png", alpha)), PICTURE)


def test_floating_point_pictures_are_of_0_to_1():
    floating = PICTURE.astype(np.float32) / 255
    np.testing.assert_array_equal(decode(encoded(".tiff", floating)), PICTURE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floating_point_pictures_that_are_not_finite_are_refused(value):
    floating = PICTURE.astype(np.float32)
    floating[3, 4, 1] = value
    with pytest.raises(CaptureError, match="NaN or infinite"):
        decode(encoded(".tiff", floating))


def test_a_folder_is_read_in_order_and_not_below(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden", "sub/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(".png"))
    source = open_source(tmp_path)
    assert [source.key(i) for i in range(source.count)] == ["a.jpg", "b.PNG"]
    assert [picture.shape for picture in source.read([0, 1])] == [(24, 32, 3)] * 2


def test_a_file_that_has_gone_is_told(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(".png"))
    source = open_source(tmp_path)
    (tmp_path / "a.png").unlink()
    gone, there = source.read([0, 1])
    assert gone == "no such file or directory"
    assert there.shape == (24, 32, 3)
    with pytest.raises(CalibrationError, match="no such file"):
        source.hash(lambda _content: None, [0])


def test_hashes_tell_bytes_moved_between_files_apart(tmp_path):
    seen = []
    for first, second in ((b"ab", b"c"), (b"a", b"bc")):
        (tmp_path / "1.png").write_bytes(first)
        (tmp_path / "2.png").write_bytes(second)
        parts: list[bytes] = []
        open_source(tmp_path).hash(parts.append, [0, 1])
        seen.append(b"".join(parts))
    assert seen[0] != seen[1]


@pytest.mark.parametrize("case", ["missing", "empty", "one", "text"])
def test_places_without_pictures_are_refused_with_advice(tmp_path, case):
    path = tmp_path
    if case == "missing":
        path = tmp_path / "nowhere"
    elif case == "one":
        path = tmp_path / "a.png"
        path.write_bytes(encoded(".png"))
    elif case == "text":
        path = tmp_path / "a.txt"
        path.write_text("hello")
    with pytest.raises(CalibrationError, match=r"pictures .*:"):
        open_source(path)


def test_frames_of_a_video_are_those_of_reading_it_through():
    source = VideoSource(SAMPLE)
    assert source.count == 500
    assert source.gap == 25
    capture = cv2.VideoCapture(str(SAMPLE))
    frames = [capture.read()[1] for _ in range(30)]
    capture.release()
    for index, pixels in zip((0, 3, 4, 29), source.read([0, 3, 4, 29]), strict=True):
        np.testing.assert_array_equal(pixels, frames[index])


def test_frames_beyond_the_end_are_told():
    source = VideoSource(SAMPLE)
    last, beyond, further = source.read([499, 500, 700])
    assert last.shape == (480, 640, 3)
    assert beyond == further == "the video has no such frame"
