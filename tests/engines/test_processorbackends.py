"""The two backends for processors build from the example's model, and prove what they built."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from agent.calibration import pictures
from engines.backend import Backend, Options, Precision, Recipe, RunOptions
from engines.canonical import canonical
from engines.describe import Overrides, describe_model
from engines.errors import BackendError, BuildError, CalibrationError, PlanError
from engines.onnxfile import read_model
from engines.openvinobackend import OpenVinoBackend, pack, unpack
from engines.ortbackend import OrtBackend
from engines.source import Source

CONVEYOR = Path(__file__).parents[2] / "examples" / "conveyor"
OPTIONS = Options(run=RunOptions(threads=1))

HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
NEEDS_OPENVINO = pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not installed")
BACKENDS = [OrtBackend(), pytest.param(OpenVinoBackend(), marks=NEEDS_OPENVINO)]


def make_source(calibration=None) -> Source:
    file = read_model(CONVEYOR / "conveyor-n.onnx")
    return Source(
        file.model, describe_model(file, Overrides()), calibration, method="max", threads=2
    )


@pytest.fixture(scope="module")
def source() -> Source:
    info = make_source().info
    chosen, _ = pictures(CONVEYOR / "sample.mp4", info, 8)
    return make_source(chosen)


def built(backend: Backend, source: Source, precision: Precision):
    floats = source.head() if precision == "int8" else frozenset()
    product = backend.build(source, Recipe(precision, floats), OPTIONS, lambda progress: None)
    return product, backend.load(product.blob, source.info, OPTIONS)


def answers(engine, source: Source) -> dict[str, np.ndarray]:
    context = engine.create_context(1)
    (array,) = context.inputs.values()
    array[0] = next(iter(source.calibration))
    return {name: value.astype(np.float64) for name, value in context.infer().items()}


def snr_db(found: np.ndarray, right: np.ndarray) -> float:
    return 10 * np.log10(np.square(right).sum() / np.square(found - right).sum())


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_every_precision_that_is_offered_is_built_proven_and_close(backend, source):
    """Scores are compared by themselves: beside coordinates, wrong ones would not be noticed."""
    _, reference = built(OrtBackend(), source, "fp32")
    right = answers(reference, source)
    limits_db = {"fp32": 90.0, "bf16": 30.0, "fp16": 40.0, "int8": 20.0}
    assert backend.offers()[0] == "fp32"
    assert "int8" in backend.offers()
    for precision in backend.offers():
        product, engine = built(backend, source, precision)
        assert engine.precision == precision
        assert engine.backend == backend.name
        assert product.route
        assert product.facts["bytes"] == len(product.blob)
        for name, value in answers(engine, source).items():
            if precision == "fp32" and backend.name == "onnxruntime":
                np.testing.assert_array_equal(value, right[name])
            else:
                scores = (value[:, 4:], right[name][:, 4:])
                assert snr_db(*scores) > limits_db[precision], precision
        engine.close()


def test_onnx_runtime_refuses_what_it_would_only_pretend(source):
    for precision in ("fp16", "bf16"):
        with pytest.raises(BuildError, match=f"no {precision} engine.*casts to float32"):
            OrtBackend().build(source, Recipe(precision), OPTIONS, lambda progress: None)


@NEEDS_OPENVINO
def test_openvino_refuses_what_the_processor_cannot(source, monkeypatch):
    backend = OpenVinoBackend()
    monkeypatch.setattr("engines.openvino.capabilities", lambda: ("FP32",))
    assert backend.offers() == ("fp32",)
    with pytest.raises(BuildError, match="bf16 on this processor; it offers fp32"):
        backend.build(source, Recipe("bf16"), OPTIONS, lambda progress: None)


@NEEDS_OPENVINO
def test_openvino_that_does_not_work_is_not_used(monkeypatch):
    def broken():
        raise BackendError("no such device")

    assert OpenVinoBackend().why_not() == ""
    monkeypatch.setattr("engines.openvino.capabilities", broken)
    assert "no such device; reinstall" in OpenVinoBackend().why_not()


def test_openvino_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "install the extra `openvino`" in OpenVinoBackend().why_not()


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_int8_without_pictures_is_refused(backend):
    with pytest.raises(CalibrationError, match="pictures"):
        backend.build(make_source(), Recipe("int8"), OPTIONS, lambda progress: None)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_building_twice_gives_the_same_bytes(backend, source):
    recipe = Recipe("int8", source.head())
    first, second = (
        backend.build(source, recipe, OPTIONS, lambda progress: None).blob for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_bytes_of_another_origin_are_refused(backend, source):
    for blob in (b"", b"garbage", b"VIGIA-OPENVINO 1 fp64\n", b"VIGIA-OPENVINO 1 fp32\ngarbage"):
        with pytest.raises((PlanError, BackendError)):
            backend.load(blob, source.info, OPTIONS)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_what_openvino_is_to_compile_for_is_kept_with_the_graph(precision):
    assert unpack(pack(precision, b"graph\n")) == (precision, b"graph\n")


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
def test_the_fingerprint_fits_a_key_and_names_library_and_processor(backend):
    fingerprint = backend.fingerprint()
    assert canonical(fingerprint) == canonical(backend.fingerprint())
    assert fingerprint["library"]
    assert fingerprint["processor"]
    assert all(isinstance(value, str) for value in fingerprint.values())
