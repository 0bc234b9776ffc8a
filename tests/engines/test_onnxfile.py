from __future__ import annotations

import os
import random

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from engines import onnxfile
from engines.describe import describe
from engines.errors import EngineError, ModelFileError
from engines.onnxfile import read_model
from tests.vectors.models import make_model


def refused(path, said):
    with pytest.raises(ModelFileError, match=said) as caught:
        read_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "m.onnx", r"no model file .*models.<slot>.path")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder")


def test_empty_file(tmp_path):
    (tmp_path / "m.onnx").touch()
    refused(tmp_path / "m.onnx", "is empty")


def test_file_below_a_file(tmp_path):
    (tmp_path / "m").touch()
    refused(tmp_path / "m" / "m.onnx", "cannot read the model file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_that_may_not_be_read(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    path.chmod(0)
    refused(path, "cannot read .*Permission denied")


def test_file_that_is_too_big(tmp_path, monkeypatch):
    path = make_model(tmp_path / "m.onnx")
    monkeypatch.setattr(onnxfile, "MAX_FILE_BYTES", 1000)
    refused(path, "bytes; an ONNX file has 1000 at the most")


@pytest.mark.parametrize(
    "content", [b"hello, world\n", b"\x7fELF\x02\x01\x01", b"\x00" * 99, b"\n\x00"]
)
def test_file_of_another_kind(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, "not an ONNX file, or is truncated")


def test_every_truncation_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx", nc=1)
    content = path.read_bytes()
    model = onnx.load(path)
    del model.metadata_props[:]
    # Up to there every byte is needed; a cut in the metadata behind could leave a whole model.
    needed = len(model.SerializeToString())
    for length in sorted({*range(1, needed, 997), *range(needed - 40, needed)}):
        path.write_bytes(content[:length])
        refused(path, "truncated")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_one_error(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError):
        read_model(path)


@pytest.mark.parametrize("kind", ["pose", "classify", "undeclared"])
def test_damaged_bytes_are_a_model_or_one_error(tmp_path, kind):
    path = tmp_path / "m.onnx"
    options = {"declared": False} if kind == "undeclared" else {"task": kind}
    content = make_model(path, nc=2, size=32, **options).read_bytes()
    weights = set()
    for tensor in onnx.load(path).graph.initializer:
        start = content.find(tensor.raw_data)
        weights.update(range(start, start + len(tensor.raw_data)))
    places = [i for i in range(len(content)) if i not in weights]
    rng = random.Random(kind)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.sample(places, rng.randint(1, 3)):
            damaged[place] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            describe(path)
            outcomes.add("described")
        except EngineError:
            outcomes.add("refused")
    assert outcomes == {"described", "refused"}


@pytest.mark.parametrize("where", [94, TensorProto.UNDEFINED, "text"])
def test_unreadable_types_and_texts_are_refused(tmp_path, where):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    if where != "text":
        model.graph.output[0].type.tensor_type.elem_type = where
    content = model.SerializeToString()
    path.write_bytes(content.replace(b"thing0", b"thin\xff0") if where == "text" else content)
    refused(path, "unreadable texts or types")


def test_external_data_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, size_threshold=0)
    refused(path, "weights in other files")


def test_external_data_inside_a_node_is_refused(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="w")
    tensor.data_location = TensorProto.EXTERNAL
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", inner))
    path.write_bytes(model.SerializeToString())
    refused(path, "weights in other files")


@pytest.mark.parametrize("place", ["sparse", "attribute", "list", "graphs"])
def test_external_data_is_found_everywhere(tmp_path, place):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="w")
    tensor.data_location = TensorProto.EXTERNAL
    attribute = model.graph.node[0].attribute.add(name="x")
    if place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "attribute":
        attribute.t.CopyFrom(tensor)
    elif place == "list":
        attribute.tensors.append(tensor)
    else:
        attribute.graphs.append(onnx.helper.make_graph([], "inner", [], [], [tensor]))
    path.write_bytes(model.SerializeToString())
    refused(path, "weights in other files")


def test_tensor_that_nothing_gives_is_named(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    name = model.graph.initializer.pop().name
    path.write_bytes(model.SerializeToString())
    refused(path, f"nothing gives its tensor '{name}'")


def test_output_that_nothing_gives_is_named(tmp_path):
    path = make_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output[0].name = "elsewhere"
    path.write_bytes(model.SerializeToString())
    refused(path, "nothing gives its tensor 'elsewhere'")
