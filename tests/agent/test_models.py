from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.config import ModelConfig
from agent.errors import ConfigError
from agent.models import load_model
from agent.modelsettings import overrides
from agent.plans import default_cache_dir
from engines.errors import EngineError, UnsupportedModelError
from tests.vectors.models import make_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    make_model(path, "detect", "yolo", nc=3, size=64)
    return path


def load(path: Path, **settings: object):
    config = ModelConfig.model_validate({"path": path, "threads": 1, **settings})
    return load_model("main", config, live=False, cache_dir=path.parent / "cache")


def test_a_loaded_model_is_warm_and_says_what_it_is(model):
    loaded = load(model)
    assert (loaded.ref.slot, loaded.ref.backend, loaded.ref.precision) == (
        "main", "onnxruntime", "fp32",
    )  # fmt: skip
    assert loaded.ref.digest.startswith("sha256:")
    context = loaded.engine.create_context(1)
    (images,) = context.inputs.values()
    assert images.shape == (1, 64, 64, 3)
    assert images.dtype == np.uint8


@pytest.mark.parametrize(("live", "lanes"), [(True, 1), (False, 2)])
def test_live_cameras_get_latency_and_files_throughput(model, live, lanes):
    config = ModelConfig(path=model, threads=2)
    loaded = load_model("main", config, live=live, cache_dir=model.parent / "cache")
    assert loaded.engine.lanes == lanes


def test_class_names_may_stand_in_a_file(model, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n\nbird\n")
    assert load(model, names=names).ref.names == ("cat", "dog", "bird")


def test_a_wrong_number_of_names_is_refused(model):
    with pytest.raises(EngineError, match=r"2.*3|3.*2"):
        load(model, names=["cat", "dog"])


def test_an_unreadable_file_of_names_is_told(tmp_path):
    config = ModelConfig(names=tmp_path / "missing.txt")
    with pytest.raises(
        ConfigError, match=r"models\.gate\.names.*missing\.txt.*one class name a line"
    ):
        overrides("gate", config)


@pytest.mark.parametrize("key", ["classes", "class_confidence"])
def test_a_class_that_the_model_does_not_have_is_told_with_those_it_has(model, key):
    value = ["unicorn"] if key == "classes" else {"unicorn": 0.5}
    with pytest.raises(ConfigError, match=rf"models\.main\.{key}.*unicorn"):
        load(model, **{key: value})


def test_the_configuration_overrides_the_file(model):
    loaded = load(model, name="gate", resize="stretch")
    assert loaded.ref.name == "gate"
    assert loaded.info.resize.value == "stretch"


def test_a_task_that_the_outputs_cannot_have_is_refused(model):
    with pytest.raises(UnsupportedModelError):
        load(model, task="classify")


def test_a_batch_is_cut_to_what_the_file_allows(tmp_path):
    fixed = tmp_path / "fixed.onnx"
    make_model(fixed, "detect", "yolo", nc=3, size=64, batch=2)
    assert load(fixed, batch=8).batch == 2


def test_the_cache_folder_follows_systemd_then_xdg(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    assert default_cache_dir() == Path("/xdg/vigia")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/vigia")
    assert default_cache_dir() == Path("/var/cache/vigia")
