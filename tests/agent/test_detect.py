"""One-shot detection: every kind of model, from a picture file to results."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from agent.config import CameraConfig, ModelConfig
from agent.detect import Saver, detect, plan
from agent.detection import Result
from agent.errors import CaptureError, ConfigError
from agent.models import load_model
from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.preprocess import Preprocessor
from engines.describe import describe
from tests.agent.vision.test_decode import IDS, KINDS
from tests.fakes.frames import frame, result
from tests.fakes.model import loaded
from tests.vectors.models import make_model


def run(model, source: Path | str, **more: object) -> list[Result]:
    results: list[Result] = []
    detect(model, plan(str(source)), "source0", results.append, **more)
    return results


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    rng = np.random.default_rng(3)
    cv2.imwrite(str(path), rng.integers(0, 256, (90, 120, 3), np.uint8))
    return path


@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_a_file_of_every_layout_finds_what_plain_decoding_of_its_output_finds(
    tmp_path, picture, task, layout
):
    path = make_model(tmp_path / "m.onnx", task, layout, size=(96, 64), prototypes=8)
    config = ModelConfig(path=path, threads=1, max_detections=10)
    model = load_model("main", config, live=False, cache_dir=tmp_path / "cache")
    (shown,) = run(model, picture)

    info = describe(path)
    pixels = np.zeros((1, info.height, info.width, 3), np.uint8)
    resize = Preprocessor(info.resize, info.width, info.height)
    placement = resize.write(cv2.imread(str(picture)), pixels[0])
    rgb = (pixels[..., ::-1].transpose(0, 3, 1, 2) / 255).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    arrays = session.run(None, {info.input.name: rgb})
    outputs = {o.name: a for o, a in zip(info.outputs, arrays, strict=True)}
    expected = Decoder(info, PostprocessSettings(max_detections=10))(outputs, 0, placement)

    found = shown.detections
    assert len(expected)
    assert found.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
    for name in ("keypoints", "rotated"):
        wanted = getattr(expected, name)
        if wanted is not None:
            np.testing.assert_allclose(getattr(found, name), wanted, atol=0.05)
    if expected.masks is not None:
        sizes = [mask.bits.shape for mask in expected.masks]
        assert [mask.bits.shape for mask in found.masks] == sizes


def test_a_limit_ends_a_source_that_would_go_on():
    assert len(run(loaded(), "synthetic://32x24@30?frames=200", limit=5)) == 5


def test_a_source_that_is_missing_empty_or_no_video_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        plan(str(tmp_path / "missing.mp4"))
    with pytest.raises(ConfigError, match="empty"):
        plan("")
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(CaptureError, match="not a video"):
        run(loaded(), text)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "picture"), ("a.mp4", "video"), ("a", "folder")]
)
def test_annotated_results_are_saved_as_the_name_says(tmp_path, name, kind):
    saver = Saver(tmp_path / name)
    assert saver.kind == kind
    run(loaded(), "synthetic://64x48@30?frames=3", save=saver)
    saver.close()
    if kind == "folder":
        assert len(list((tmp_path / name).glob("*.jpg"))) == 3
    else:
        assert (tmp_path / name).stat().st_size > 100
    if kind == "video":
        capture = cv2.VideoCapture(str(tmp_path / name))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
        capture.release()


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--save"):
        Saver(tmp_path / "file" / "out.jpg")


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    saver = Saver(tmp_path / "a.png")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        saver.write(np.zeros((4, 4, 3), np.uint8), result(frame()))


def test_live_sources_are_planned_without_looking_at_the_disk():
    assert plan("rtsp://h/s") == CameraConfig(source="rtsp://h/s")
