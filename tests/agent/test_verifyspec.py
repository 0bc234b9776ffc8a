from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.verifyspec import parse


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"x")
    return path


def test_a_file_is_a_model(model):
    spec = parse(str(model))
    assert (spec.path, spec.backend, spec.precision) == (model, None, None)


def test_a_file_can_be_built(model):
    spec = parse(f"{model}:openvino:bf16")
    assert (spec.path, spec.backend, spec.precision) == (model, "openvino", "bf16")


def test_a_slot_can_be_built():
    assert parse("slot:main").slot == "main"
    spec = parse("slot:main:onnxruntime:int8")
    assert (spec.slot, spec.backend, spec.precision) == ("main", "onnxruntime", "int8")


def test_digits_are_a_plan_unless_there_is_such_a_file(model):
    assert parse("abc123").plan == "abc123"
    (model.parent / "abc123").write_bytes(b"x")
    assert parse("abc123").plan == ""


def test_a_file_may_have_colons_in_its_name(model):
    strange = model.with_name("a:openvino:bf16")
    strange.write_bytes(b"x")
    assert parse(str(strange)).path == strange


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no such file"),
        ("missing.onnx", "'missing.onnx': no such file"),
        ("m.onnx:cuda:int8", "cuda:int8 is no backend and precision"),
        ("m.onnx:openvino:int4", "openvino:int4 is no backend and precision"),
        ("m.onnx:int8", "no such file"),
        ("slot:", "not understood"),
        ("slot:a:b", "is no backend and precision|not understood"),
        ("ABCDEF", "no such file"),
        ("abc", "no such file"),
    ],
)
def test_what_is_none_of_these_is_refused_with_the_forms(model, text, told):
    with pytest.raises(ConfigError, match=told):
        parse(text)
