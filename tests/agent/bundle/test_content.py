import re
import time

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, onnx_ml_pb2

from agent.bundle import onnxschema, protowire
from agent.bundle.content import check_model, check_onnx
from agent.errors import BundleError, StoreError
from engines.model import Layout, Task
from engines.onnxfile import read_model
from tests.vectors import hostileonnx
from tests.vectors.bundles import CONVEYOR, make_bundle, read_bundle, tiny_model
from tests.vectors.hostileonnx import BESIDE, MAKERS, external, function, hostile, model, nested
from tests.vectors.models import make_model


def written(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_a_trained_model_passes():
    check_onnx(CONVEYOR, {})


@pytest.mark.parametrize("layout", [Layout.YOLO, Layout.ANCHOR, Layout.END2END, Layout.DETR])
@pytest.mark.parametrize("half", [False, True])
def test_a_detector_of_every_layout_passes(tmp_path, layout, half):
    check_onnx(make_model(tmp_path / "m.onnx", Task.DETECT, layout, half=half), {})


def test_branches_functions_and_external_data_in_the_bundle_pass(tmp_path):
    made = model(
        nodes=(nested(3), helper.make_node("f", ["x"], ["z"], domain="own")),
        weights=(external("weights.bin", offset=48, length=16, checksum="x"),),
        functions=(function("f", ("g", "g")), function("g", ())),
        domains=("", "own"),
    )
    check_onnx(written(tmp_path, made), BESIDE)


@pytest.mark.parametrize("kind", sorted(onnxschema.BITS))
def test_a_tensor_of_every_type_passes(tmp_path, kind):
    count = onnxschema.BITS[kind]
    tensor = TensorProto(name="w", dims=[8], data_type=kind, raw_data=bytes(count))
    check_onnx(written(tmp_path, model(weights=(tensor,))), {})


@pytest.mark.parametrize("name", MAKERS)
def test_a_hostile_model_is_refused_and_says_why(tmp_path, name):
    with pytest.raises(BundleError, match=MAKERS[name][1]) as caught:
        check_onnx(written(tmp_path, hostile(name)), BESIDE)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_external_data_may_not_lie_among_the_pictures(tmp_path):
    content = model(weights=(external("a.bin"),)).SerializeToString()
    make_bundle(tmp_path / "b", {"model.onnx": content, "golden/a.bin": bytes(16)})
    with pytest.raises(BundleError, match="no file of the bundle"):
        check_model(written(tmp_path, content), read_bundle(tmp_path / "b").manifest)


def test_external_data_may_lie_beside_the_model(tmp_path):
    content = model(weights=(external("a.bin"),)).SerializeToString()
    make_bundle(tmp_path / "b", {"model.onnx": content, "a.bin": bytes(16)})
    check_model(written(tmp_path, content), read_bundle(tmp_path / "b").manifest)


def test_functions_that_expand_without_end_are_counted_not_expanded(tmp_path):
    path = written(tmp_path, hostile("many: functions, expanded"))
    begin_s = time.process_time()
    with pytest.raises(BundleError):
        check_onnx(path, {})
    assert time.process_time() - begin_s < 1


def test_a_file_of_too_many_fields_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(protowire, "MAX_FIELDS", 10)
    with pytest.raises(BundleError, match="more than 10 fields"):
        check_onnx(written(tmp_path, model()), {})


def test_a_file_that_is_empty_missing_or_a_link(tmp_path):
    with pytest.raises(BundleError, match="0 bytes"):
        check_onnx(written(tmp_path, b""), {})
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "none.onnx"))):
        check_onnx(tmp_path / "none.onnx", {})
    (tmp_path / "link.onnx").symlink_to(CONVEYOR)
    with pytest.raises(StoreError):
        check_onnx(tmp_path / "link.onnx", {})


def test_a_model_cut_anywhere_is_refused_or_still_whole(tmp_path):
    content = model(nodes=(nested(2),)).SerializeToString()
    refused = 0
    for end in range(len(content)):
        try:
            check_onnx(written(tmp_path, content[:end]), {})
        except BundleError:
            refused += 1
        else:
            onnx.ModelProto.FromString(content[:end])
    assert refused > 0.9 * len(content)


SAMPLE = model(
    nodes=(nested(2),),
    weights=(hostileonnx.weight(raw_data=bytes(16)), external("weights.bin")),
    functions=(function("f", ()),),
    domains=("", "own"),
).SerializeToString()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_what_passes_is_what_the_parser_sees(tmp_path_factory, changes):
    content = bytearray(SAMPLE)
    for at, value in changes:
        content[at] = value
    path = written(tmp_path_factory.getbasetemp(), bytes(content))
    try:
        check_onnx(path, BESIDE)
    except BundleError:
        return
    try:
        parsed = onnx.ModelProto.FromString(bytes(content))
    except DecodeError:
        # The walk passes over lists of numbers that are cut; the parser does not.
        return
    tensors = [*parsed.graph.initializer]
    for node in parsed.graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *(w for n in attribute.g.node for w in _constants(n))]
    for tensor in tensors:
        places = {e.value for e in tensor.external_data if e.key == "location"}
        assert places <= set(BESIDE)
        assert tensor.external_data or tensor.data_location == TensorProto.DEFAULT


def _constants(node):
    for attribute in node.attribute:
        yield attribute.t
        for inner in attribute.g.node:
            yield from _constants(inner)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_garbage_is_refused_by_one_family(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content)
    with pytest.raises(BundleError):
        check_onnx(path, {})


MESSAGES = {
    "MODEL": "ModelProto",
    "OPSET": "OperatorSetIdProto",
    "ENTRY": "StringStringEntryProto",
    "GRAPH": "GraphProto",
    "FUNCTION": "FunctionProto",
    "NODE": "NodeProto",
    "ATTRIBUTE": "AttributeProto",
    "TENSOR": "TensorProto",
    "SPARSE": "SparseTensorProto",
    "ANNOTATION": "TensorAnnotation",
    "VALUE": "ValueInfoProto",
    "TYPE": "TypeProto",
    "SHAPE": "TensorShapeProto",
}
LEFT_OUT = {"training_info", "configuration", "device_configurations", "segment", "opaque_type"}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_schema_is_that_of_onnx(name):
    ours = getattr(onnxschema, name)
    theirs = {}
    for entry in getattr(onnx_ml_pb2, MESSAGES[name]).DESCRIPTOR.fields:
        kind = {1: "d", 2: "f", 9: "t", 11: "b", 12: "b"}.get(entry.type, "i")
        if entry.name not in LEFT_OUT:
            theirs[entry.number] = kind.upper() if _repeated(entry) else kind
    # An older ONNX lacks what came later.
    assert {number: ours[number] for number in theirs} == theirs


def _repeated(entry):
    # Newer versions of Protocol Buffers warn of the older way to ask.
    return entry.is_repeated if hasattr(entry, "is_repeated") else entry.label == 3


def test_what_passes_can_be_read_by_the_engines(tmp_path):
    path = written(tmp_path, tiny_model())
    check_onnx(path, {})
    assert read_model(path).model.graph.node
