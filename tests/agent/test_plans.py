"""Which built engine belongs to a slot: every change is another key, and nothing is built."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from agent.config import ModelConfig
from agent.errors import ConfigError
from agent.plans import PlanRequest, Plans, default_cache_dir, policy
from engines.errors import CalibrationError, ModelFileError, PlanError
from engines.graph import bake
from tests.vectors.models import make_model

SLOT = "main"


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "tiny.onnx"
    make_model(path, "detect", "yolo", nc=3, size=64)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        cv2.imwrite(str(place / f"{number:03}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
    return place


def plans(tmp_path, model, **settings) -> Plans:
    config = ModelConfig(path=model, threads=1, **settings)
    return Plans(PlanRequest(SLOT, config, live=True, cache_dir=tmp_path / "cache"))


def key(tmp_path, model, **settings) -> str:
    return plans(tmp_path, model, **settings).key.hex


def test_key_is_the_same_for_the_same(tmp_path, model, folder):
    settings = {"quantize": {"calibration": folder}}
    assert key(tmp_path, model, **settings) == key(tmp_path, model, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "int8"},
        {"backend": "onnxruntime"},
        {"batch": 2},
        {"threads": 2},
        {"arrangement": "throughput"},
        {"confidence": 0.5},
        {"mean": (0.1, 0.1, 0.1)},
        {"resize": "stretch"},
        {"gate": {"min_matched": 0.5}},
        {"gate": {"min_speedup": 1.2}},
        {"quantize": {"method": "max"}},
        {"quantize": {"keep_float": "none"}},
        {"tensorrt": {"level": 2}},
        {"tensorrt": {"workspace_mb": 64}},
        {"tensorrt": {"preprocess": "cuda"}},
    ],
    ids=str,
)
def test_every_option_is_part_of_the_key(tmp_path, model, settings):
    changed = {"threads": 1, **settings}
    config = ModelConfig(path=model, **changed)
    other = Plans(PlanRequest(SLOT, config, live=True, cache_dir=tmp_path / "cache"))
    assert other.key.hex != key(tmp_path, model)


def test_one_weight_is_part_of_the_key(tmp_path, model):
    before = key(tmp_path, model)
    proto = onnx.load(model)
    weights = max(proto.graph.initializer, key=lambda w: len(w.raw_data))
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(1e9))
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(proto, model)
    assert key(tmp_path, model) != before


def test_one_picture_is_part_of_the_key(tmp_path, model, folder):
    settings = {"quantize": {"calibration": folder}}
    before = key(tmp_path, model, **settings)
    picture = folder / "007.png"
    pixels = cv2.imread(str(picture))
    pixels[0, 0, 0] ^= 1
    cv2.imwrite(str(picture), pixels)
    changed = key(tmp_path, model, **settings)
    (folder / "003.png").unlink()
    assert len({before, changed, key(tmp_path, model, **settings)}) == 3


def test_where_the_cache_lies_is_not_part_of_the_key(tmp_path, model):
    config = ModelConfig(path=model, threads=1)
    places = [
        Plans(PlanRequest(SLOT, config, live=True, cache_dir=tmp_path / name)) for name in "ab"
    ]
    assert places[0].key == places[1].key


def test_looking_writes_nothing(tmp_path, model):
    assert plans(tmp_path, model).find() is None
    assert not (tmp_path / "cache").exists()


def test_unusable_pictures_and_truths_are_told(tmp_path, model):
    with pytest.raises(CalibrationError, match="nowhere"):
        plans(tmp_path, model, quantize={"calibration": tmp_path / "nowhere"}).find()
    with pytest.raises(ConfigError, match=r"quantize\.truth"):
        plans(tmp_path, model, quantize={"truth": tmp_path / "nothing.json"}).find()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"backend": "onnxruntime"}, False),
        ({"precision": "fp32", "backend": "onnxruntime"}, False),
        ({"precision": "fp16", "backend": "onnxruntime"}, True),
        ({"backend": "tensorrt"}, True),
    ],
    ids=str,
)
def test_build_is_wanted_where_it_can_change_something(tmp_path, model, settings, wanted):
    assert plans(tmp_path, model, **settings).wanted() is wanted


def test_pictures_make_int8_possible(tmp_path, model, folder):
    assert plans(tmp_path, model, backend="onnxruntime", quantize={"calibration": folder}).wanted()


def test_replaced_model_is_noticed(tmp_path, model):
    found = plans(tmp_path, model)
    make_model(model, "detect", "yolo", nc=4, size=64)
    with pytest.raises(ModelFileError, match="was replaced"):
        found.read_model()


def test_plan_of_another_backend_or_precision_is_refused(tmp_path, model):
    found = plans(tmp_path, model, backend="onnxruntime")
    key = found.key
    assert found.cache.put(key, b"x", {"backend": "tensorrt", "precision": "fp16"})
    with pytest.raises(PlanError, match="tensorrt, which cannot be used here"):
        found.load(found.find())
    blob = bake(found.read_model(), found.info).SerializeToString()
    assert found.cache.put(key, blob, {"backend": "onnxruntime", "precision": "int8"})
    with pytest.raises(PlanError, match="says int8 and computes in fp32"):
        found.load(found.find())


def test_request_travels_to_another_process(tmp_path, model, folder):
    config = ModelConfig(path=model, quantize={"calibration": folder}, class_confidence={"a": 0.3})
    request = PlanRequest("gate", config, live=False, cache_dir=tmp_path, cache_max_mb=77)
    assert PlanRequest.from_json(request.to_json()) == request


def test_explicit_precision_need_not_win_by_a_margin(model):
    assert policy(ModelConfig(path=model, precision="int8")).min_speedup == 1
    assert policy(ModelConfig(path=model)).min_speedup == 1.05


def test_cache_folder_follows_systemd_then_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "systemd"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "systemd"
    monkeypatch.delenv("CACHE_DIRECTORY")
    assert default_cache_dir() == tmp_path / "xdg" / "vigia"
    shutil.rmtree(tmp_path / "xdg", ignore_errors=True)
