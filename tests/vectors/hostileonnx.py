"""ONNX files that no device may use, and why; made with ONNX's own tools where those can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.bundle import content, onnxtensor

if TYPE_CHECKING:
    from collections.abc import Callable

FLOAT = TensorProto.FLOAT

BESIDE = {"model.onnx": 100_000, "weights.bin": 64}
"""The files of a bundle that lie beside the model in it, with their bytes."""


def model(
    *,
    nodes: tuple[onnx.NodeProto, ...] = (),
    weights: tuple[onnx.TensorProto, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
    domains: tuple[str, ...] = ("",),
    shape: tuple[int, ...] = (4,),
) -> onnx.ModelProto:
    """A model of one harmless node, and what is given."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, shape)],
        list(weights),
    )
    opsets = [helper.make_opsetid(domain, 17) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def weight(dims: tuple[int, ...] = (4,), **fields: object) -> onnx.TensorProto:
    """A tensor with these fields and no others."""
    return TensorProto(name="w", dims=dims, data_type=FLOAT, **fields)


def external(location: str, **entries: object) -> onnx.TensorProto:
    """A tensor of 16 bytes that lie in another file."""
    tensor = weight(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def nested(depth: int, inmost: onnx.TensorProto | None = None) -> onnx.NodeProto:
    """An If inside an If, and so on."""
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=inmost or weight(raw_data=bytes(16)))],
        "b",
        [],
        [helper.make_tensor_value_info("o", FLOAT, [4])],
    )
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph)
        if _ == depth - 1:
            return node
        graph = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("o", FLOAT, [4])])
    raise AssertionError("depth is at least 1")


def function(name: str, calls: tuple[str, ...], domain: str = "own") -> onnx.FunctionProto:
    """A function of the file's own domain that calls others, or computes."""
    nodes = [helper.make_node(call, ["x"], ["y"], domain=domain) for call in calls]
    return helper.make_function(
        domain,
        name,
        ["x"],
        ["y"],
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)],
    )


def field(number: int, value: bytes) -> bytes:
    """A field of bytes, text or a message as Protocol Buffers write it."""
    length, size = b"", len(value)
    while size >= 0x80:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    key = number << 3 | 2
    head = bytes([key]) if key < 0x80 else bytes([key & 0x7F | 0x80, key >> 7])
    return head + length + bytes([size]) + value


def _laughs() -> onnx.ModelProto:
    """Ten functions; each calls the next ten times: ten thousand million nodes."""
    levels = tuple(function(f"f{n}", (f"f{n + 1}",) * 10) for n in range(10))
    return model(
        nodes=(helper.make_node("f0", ["x"], ["z"], domain="own"),),
        functions=(*levels, function("f10", ())),
        domains=("", "own"),
    )


def _recursive() -> onnx.ModelProto:
    return model(
        nodes=(helper.make_node("f", ["x"], ["z"], domain="own"),),
        functions=(function("f", ("f",)),),
        domains=("", "own"),
    )


def _merged() -> bytes:
    """One attribute with its tensor in two parts, which a parser merges to an external one."""
    second = TensorProto(data_location=TensorProto.EXTERNAL)
    second.external_data.add(key="location", value="/etc/passwd")
    parts = weight().SerializeToString(), second.SerializeToString()
    attribute = field(1, b"value") + b"".join(field(5, part) for part in parts)
    node = field(2, b"o") + field(4, b"Constant") + field(5, attribute)
    return model().SerializeToString() + field(7, field(1, node))


def _deep_type() -> onnx.ModelProto:
    found = model()
    kind = found.graph.input.add(name="s").type
    for _ in range(10):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = FLOAT
    return found


def _training() -> onnx.ModelProto:
    found = model()
    found.training_info.add().initialization.name = "t"
    return found


def _segment() -> onnx.ModelProto:
    tensor = weight(raw_data=bytes(16))
    tensor.segment.begin = 1
    return model(weights=(tensor,))


def _sparse() -> onnx.ModelProto:
    found = model()
    sparse = found.graph.sparse_initializer.add(dims=[2**40, 2**40])
    sparse.values.CopyFrom(weight(dims=(1,), raw_data=bytes(4)))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0])))
    return found


def _sparse_external() -> onnx.ModelProto:
    found = model()
    sparse = found.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(external("../secret"))
    return found


def _unlabelled() -> onnx.ModelProto:
    tensor = external("/etc/passwd")
    tensor.data_location = TensorProto.DEFAULT
    return model(weights=(tensor,))


def _unknown_place() -> bytes:
    found = model()
    tensor = weight().SerializeToString() + b"\x70\x07"
    graph = found.graph.SerializeToString() + field(5, tensor)
    found.ClearField("graph")
    return found.SerializeToString() + field(7, graph)


def _in_function() -> onnx.ModelProto:
    made = function("f", ())
    made.node.add(op_type="Constant", output=["o"]).attribute.add(
        name="value", type=onnx.AttributeProto.TENSOR
    ).t.CopyFrom(external("../secret"))
    return model(functions=(made,), domains=("", "own"))


def _with_attribute(name: str, value: object) -> onnx.ModelProto:
    return model(nodes=(helper.make_node("Relu", ["x"], ["z"], **{name: value}),))


def _weights(*tensors: onnx.TensorProto) -> Callable[[], onnx.ModelProto]:
    return lambda: model(weights=tensors)


def _nodes(*nodes: onnx.NodeProto) -> Callable[[], onnx.ModelProto]:
    return lambda: model(nodes=nodes)


def _plus(tail: bytes) -> Callable[[], bytes]:
    return lambda: model().SerializeToString() + tail


def _external_twice() -> onnx.ModelProto:
    tensor = external("weights.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model(weights=(tensor,))


def _many_nodes() -> bytes:
    """Four bytes of file for each node; one too many."""
    nodes = field(1, field(4, b"")) * (content.MAX_NODES + 1)
    return field(7, nodes) + field(8, b"")


def _many_tensors() -> bytes:
    """One empty tensor too many."""
    tensors = field(5, b"\x08\x00\x10\x01") * (onnxtensor.MAX_TENSORS + 1)
    return field(7, tensors) + field(8, b"")


MAKERS: dict[str, tuple[Callable[[], onnx.ModelProto | bytes], str]] = {
    "external: parent folder": (_weights(external("../../etc/passwd")), "no file of the bundle"),
    "external: absolute": (_weights(external("/etc/passwd")), "no file of the bundle"),
    "external: no location": (_weights(external("")), "no file of the bundle"),
    "external: name with a NUL": (_weights(external("weights.bin\0x")), "no file of the bundle"),
    "external: dot slash": (_weights(external("./weights.bin")), "no file of the bundle"),
    "external: other key": (_weights(external("weights.bin", basepath="/etc")), "'basepath'"),
    "external: location twice": (_external_twice, "'location'"),
    "external: beyond the end": (_weights(external("weights.bin", offset=49)), "beyond the end"),
    "external: negative offset": (_weights(external("weights.bin", offset=-1)), "no number"),
    "external: other length": (_weights(external("weights.bin", length=64)), "not 64"),
    "external: huge offset": (_weights(external("weights.bin", offset=10**30)), "no number"),
    "external: data of its own too": (
        _weights(weight(data_location=1, raw_data=bytes(16))),
        "data of its own",
    ),
    "external: not said to be": (_unlabelled, "not said to be external"),
    "external: unknown place": (_unknown_place, "not said to be external"),
    "external: in a constant": (
        _nodes(helper.make_node("Constant", [], ["o"], value=external("../secret"))),
        "no file of the bundle",
    ),
    "external: in a branch": (_nodes(nested(3, external("../secret"))), "no file of the bundle"),
    "external: in a function": (_in_function, "no file of the bundle"),
    "external: in a sparse weight": (_sparse_external, "no file of the bundle"),
    "external: in two parts": (_merged, "stands twice"),
    "giant: no data": (_weights(weight(dims=(2**20, 2**10))), "0 bytes of data"),
    "giant: more than can be addressed": (_weights(weight(dims=(2**40,))), "more than 2147483647"),
    "giant: hidden behind a zero": (_weights(weight(dims=(2**40, 0))), "more than 2147483647"),
    "giant: less raw data": (_weights(weight(raw_data=bytes(15))), "15 bytes of data"),
    "giant: more raw data": (_weights(weight(raw_data=bytes(17))), "17 bytes of data"),
    "giant: few typed data": (_weights(weight((999,), float_data=[1.0])), "999 elements"),
    "giant: negative size": (_weights(weight(dims=(-1, 4))), "negative size"),
    "giant: too many dimensions": (_weights(weight(dims=(1,) * 65)), "more than 64 numbers"),
    "giant: sparse": (_sparse, "more than 2147483647"),
    "giant: declared shape": (lambda: model(shape=(2**30, 2**30)), "a shape of more than"),
    "giant: attribute": (lambda: _with_attribute("a", "x" * (2**20 + 1)), "attribute above"),
    "giant: list attribute": (lambda: _with_attribute("a", [1.5] * (2**18 + 1)), "attribute above"),
    "giant: name": (
        _nodes(helper.make_node("Relu", ["x"], ["z"], name="n" * (2**20 + 1))),
        "more than 1048576 bytes",
    ),
    "tensor: type not known": (_weights(TensorProto(data_type=99)), "data type 99"),
    "tensor: raw data of texts": (_weights(TensorProto(data_type=8, raw_data=b"x")), "raw data of"),
    "tensor: two kinds of data": (_weights(weight(raw_data=bytes(16), float_data=[1])), "beside"),
    "tensor: in segments": (_segment, "field 3 is not known"),
    "deep: branches": (_nodes(nested(content.MAX_GRAPH_DEPTH + 1)), "graphs nested deeper"),
    "deep: types": (_deep_type, "a type nested deeper"),
    "many: nodes": (_many_nodes, "graph: more than 100000 nodes"),
    "many: tensors": (_many_tensors, "more than 200000 tensors"),
    "wire: two graphs": (_plus(field(7, b"")), "stands twice"),
    "many: functions, expanded": (_laughs, "become more than"),
    "many: functions that call themselves": (_recursive, "call themselves"),
    "many: operator sets": (
        lambda: model(domains=("",) * (content.MAX_OPSETS + 1)),
        "operator sets",
    ),
    "foreign: compiled engine": (
        _nodes(helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft")),
        "runs foreign code",
    ),
    "foreign: operator domain": (
        _nodes(helper.make_node("Evil", ["x"], ["z"], domain="evil")),
        "'evil' is not known",
    ),
    "foreign: operator set": (lambda: model(domains=("", "evil")), "'evil' is not known"),
    "foreign: training": (_training, "field 20 is not known"),
    "wire: field not known": (_plus(field(99, b"x")), "field 99 is not known"),
    "wire: group": (_plus(b"\x0b\x0c"), "no ONNX file"),
    "wire: other type": (_plus(b"\x38\x01"), "of another type"),
    "wire: number without an end": (_plus(b"\x08" + b"\xff" * 11), "damaged or cut"),
    "wire: longer than the file": (_plus(b"\x3a\xff\xff\xff\xff\x0f"), "damaged or cut"),
    "none: no graph": (lambda: field(8, field(1, b"")), "no graph"),
    "none: no operator set": (
        lambda: field(7, model().graph.SerializeToString()),
        "no operator set",
    ),
    "none: no nodes": (lambda: field(7, b"") + field(8, b""), "no nodes"),
    "none: text": (lambda: b"this is a text, not a model", "."),
}
"""What is wrong -> (how to make it, what the refusal says)."""


def hostile(name: str) -> bytes:
    """The file of a case of `MAKERS`."""
    made = MAKERS[name][0]()
    return made if isinstance(made, bytes) else made.SerializeToString()
