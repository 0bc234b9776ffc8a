"""What a slot runs when a bundle serves it: the bundle's model, the site's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.bundle.manifest import Build, CanaryRules, GateRules, ShadowRules
from agent.config import ModelConfig
from agent.plans import PlanRequest
from agent.update.ports import Candidate, Rules
from agent.update.trial import golden_of, request_of, truth_of
from tests.vectors.bundles import make_bundle, read_bundle, tiny_model

FILES = Path("/dev/shm/opened")


def base(**config: object) -> PlanRequest:
    settings = {"path": "/models/main.onnx", "confidence": 0.4, "threads": 3, **config}
    return PlanRequest("main", ModelConfig.model_validate(settings), True, Path("/cache"), 77)


@pytest.fixture
def candidate(tmp_path):
    def make(files: dict[str, bytes] | None = None, **facts: object) -> Candidate:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        packed = make_bundle(folder, {"model.onnx": tiny_model(), **(files or {})}, **facts)
        rules = Rules(GateRules(), ShadowRules(), CanaryRules())
        return Candidate("main", packed.digest, read_bundle(folder).manifest, FILES, rules)

    return make


def test_the_model_is_the_bundles_and_the_rest_is_the_sites(candidate):
    own = base(names=["old"], path="/models/main.onnx", batch=2)
    request = request_of(own, candidate())
    assert request.config.path == FILES / "model.onnx"
    assert request.config.name == "conveyor-1.0.0"
    assert request.config.names is None
    assert (request.config.confidence, request.config.threads, request.config.batch) == (0.4, 3, 2)
    assert (request.slot, request.live, request.cache_max_mb) == ("main", True, 77)
    assert own.config.path == Path("/models/main.onnx")


def test_what_the_manifest_says_of_the_model_counts(candidate):
    build = Build(precision="fp16", names=("a", "b"), confidence=0.6)
    config = request_of(base(), candidate(build=build)).config
    assert config.names == ["a", "b"]
    assert config.precision == "fp16"
    assert config.confidence == 0.6


def test_precision_stays_the_sites_where_the_manifest_leaves_it_open(candidate):
    assert request_of(base(precision="int8"), candidate()).config.precision == "int8"


def test_labels_are_names_where_the_manifest_has_none(candidate):
    config = request_of(base(), candidate({"labels.txt": b"a\nb\n"})).config
    assert config.names == FILES / "labels.txt"


def test_the_bundles_pictures_calibrate_if_it_brings_any_else_the_sites(candidate):
    quantize = {"calibration": "/site/pictures", "truth": "/site/truth.json", "images": 99}
    own = base(quantize=quantize)
    kept = request_of(own, candidate()).config.quantize
    assert kept.calibration == Path("/site/pictures")
    assert kept.truth == Path("/site/truth.json")
    brought = request_of(own, candidate({"calibration/a.png": b"x"})).config.quantize
    assert brought.calibration == FILES / "calibration"
    assert brought.truth is None
    assert brought.images == 99


def test_the_golden_set_is_where_the_bundle_was_opened(candidate):
    assert golden_of(candidate()) is None
    assert truth_of(candidate()) is None
    whole = candidate({"golden/a.png": b"x", "truth.json": b"{}"})
    assert golden_of(whole) == FILES / "golden"
    assert truth_of(whole) == FILES / "truth.json"


def test_a_request_is_the_same_each_time_so_that_going_back_finds_it(candidate):
    one = candidate({"labels.txt": b"a\n"})
    assert request_of(base(), one) == request_of(base(), one)
    assert PlanRequest.from_json(request_of(base(), one).to_json()) == request_of(base(), one)
