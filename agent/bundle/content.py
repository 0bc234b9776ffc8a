"""Looks through an ONNX file before anything parses it: what it may hold, how much, and where.

The file is walked in place, so nothing is allocated for what it claims. Refused are

- data in files that are not in the bundle beside it, whatever their path says;
- tensors larger than their data, absurd shapes, deep nesting, too many nodes, and functions that
  become too many when they are expanded;
- fields, data types and operator domains that are not known, and operators that run foreign code.

Operators of known domains are for the backends to know; those run nothing that is not installed.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.bundle.manifest import FOLDERS
from agent.bundle.onnxschema import (
    ANNOTATION,
    ATTRIBUTE,
    ENTRY,
    FUNCTION,
    GRAPH,
    MODEL,
    NODE,
    OPSET,
)
from agent.bundle.onnxtensor import Tensors
from agent.bundle.protowire import Reader, size, spans
from agent.errors import BundleError, StoreError
from engines.durable import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.bundle.manifest import Manifest
    from agent.bundle.protowire import Message, Span

MAX_FILE_BYTES = 2**31 - 1
"""What a Protocol Buffers message can hold."""

MAX_NODES = 100_000
"""Of all graphs, with functions expanded as often as they are called."""

MAX_FUNCTIONS = 2000
MAX_CALL_DEPTH = 32
MAX_GRAPH_DEPTH = 8
"""Graphs inside nodes of graphs."""

MAX_ATTRIBUTE_BYTES = 2**20
"""Of an attribute that is no tensor or graph."""

MAX_OPSETS = 16
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "trt.plugins"})
"""Operator domains; those of functions that the file holds itself are added."""

FOREIGN_CODE = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "PyOp", "PyCustomOp", "ATen"})
"""Operators that load a compiled engine, or run Python: not what a model is."""

Function = tuple[str, str]
"""Domain and name."""


def check_model(path: Path, manifest: Manifest) -> None:
    """Look through a model of a bundle.

    Args:
        path: the ONNX file.
        manifest: of its bundle; external data may lie in its files beside the model.

    Raises:
        BundleError: it holds what no model of ours may.
        StoreError: it cannot be read.
    """
    beside = {f.name: f.length for f in manifest.files if f.role not in FOLDERS}
    check_onnx(path, beside)


def check_onnx(path: Path, beside: Mapping[str, int]) -> None:
    """Look through an ONNX file.

    Args:
        path: the file.
        beside: bytes of the files that may hold its external data, by name.

    Raises:
        BundleError: it holds what no model of ours may.
        StoreError: it cannot be read.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if not 0 < length <= MAX_FILE_BYTES:
                raise BundleError(
                    f"{path.name}: {length} bytes; an ONNX file has 1 to {MAX_FILE_BYTES}"
                )
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data:
                _Walk(Reader(data, path.name), beside).model((0, length))
    except OSError as error:
        raise StoreError(f"cannot read the model {path}: {error.strerror}") from error


@dataclass(slots=True)
class _Body:
    """Nodes of a graph with those inside it, and how often each operator stands there."""

    nodes: int = 0
    calls: Counter[Function] = field(default_factory=Counter)


class _Walk:
    """One walk through a model."""

    def __init__(self, reader: Reader, beside: Mapping[str, int]) -> None:
        self._reader = reader
        self._tensors = Tensors(reader, beside)
        self._nodes = 0
        self._domains = DOMAINS

    def model(self, span: Span) -> None:
        model = self._reader.message(span, MODEL, "model")
        functions = self._functions(model)
        self._domains |= {domain for domain, _ in functions}
        opsets = spans(model.get(8))
        self._opsets(opsets, "model")
        self._entries(model.get(14), "model")
        graphs = spans(model.get(7))
        if not graphs or not opsets:
            raise self._reader.fault("model", "it is no ONNX model: no graph, or no operator set")
        main = _Body()
        self._graph(graphs[0], main, "graph", 0)
        if not main.nodes:
            raise self._reader.fault("graph", "it has no nodes")
        bodies = {name: self._function(name, fields) for name, fields in functions.items()}
        expanded = self._expanded(main, bodies, {}, 0)
        if expanded > MAX_NODES:
            raise self._reader.fault("model", f"functions that become more than {MAX_NODES} nodes")

    def _functions(self, model: Message) -> dict[Function, list[Message]]:
        """Functions by name; overloads together."""
        found: dict[Function, list[Message]] = {}
        all_spans = spans(model.get(25))
        if len(all_spans) > MAX_FUNCTIONS:
            raise self._reader.fault("model", f"more than {MAX_FUNCTIONS} functions")
        for span in all_spans:
            fields = self._reader.message(span, FUNCTION, "function")
            name = (self._domain(fields.get(10)), self._reader.text(fields.get(1)))
            found.setdefault(name, []).append(fields)
        return found

    def _function(self, name: Function, overloads: list[Message]) -> _Body:
        where = f"function {name[1][:64]!r}"
        body = _Body()
        for fields in overloads:
            self._opsets(spans(fields.get(9)), where)
            self._entries(fields.get(14), where)
            for span in spans(fields.get(11)):
                self._attribute(span, body, where, 0)
            for span in spans(fields.get(12)):
                self._tensors.check_value(span, where)
            for span in spans(fields.get(7)):
                self._node(span, body, where, 0)
        return body

    def _expanded(
        self, body: _Body, bodies: Mapping[Function, _Body], known: dict[Function, int], depth: int
    ) -> int:
        """Nodes when every call is replaced by what it calls; the walk is as deep as the calls."""
        if depth > MAX_CALL_DEPTH:
            raise self._reader.fault("model", "functions that call themselves, or too deeply")
        nodes = body.nodes
        for name, count in body.calls.items():
            if name in bodies:
                if name not in known:
                    known[name] = self._expanded(bodies[name], bodies, known, depth + 1)
                nodes += count * known[name]
        return nodes

    def _graph(self, span: Span, body: _Body, where: str, depth: int) -> None:
        if depth > MAX_GRAPH_DEPTH:
            raise self._reader.fault(where, f"graphs nested deeper than {MAX_GRAPH_DEPTH} levels")
        graph = self._reader.message(span, GRAPH, where)
        for tensor in spans(graph.get(5)):
            self._tensors.check(tensor, f"{where}, weight")
        for tensor in spans(graph.get(15)):
            self._tensors.check_sparse(tensor, f"{where}, sparse weight")
        for number in (11, 12, 13):
            for value in spans(graph.get(number)):
                self._tensors.check_value(value, f"{where}, declared value")
        for annotation in spans(graph.get(14)):
            fields = self._reader.message(annotation, ANNOTATION, where)
            self._entries(fields.get(2), where)
        self._entries(graph.get(16), where)
        for node in spans(graph.get(1)):
            self._node(node, body, where, depth)

    def _node(self, span: Span, body: _Body, where: str, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._reader.fault(where, f"more than {MAX_NODES} nodes")
        node = self._reader.message(span, NODE, where)
        kind = self._reader.text(node.get(4))
        domain = self._domain(node.get(7))
        if kind in FOREIGN_CODE:
            raise self._reader.fault(where, f"operator {kind}, which runs foreign code")
        if domain not in self._domains:
            raise self._reader.fault(where, f"operator domain {domain[:64]!r} is not known")
        body.nodes += 1
        body.calls[domain, kind] += 1
        self._entries(node.get(9), where)
        for attribute in spans(node.get(5)):
            self._attribute(attribute, body, f"{where}, {kind[:64]!r} {self._nodes}", depth)

    def _attribute(self, span: Span, body: _Body, where: str, depth: int) -> None:
        attribute = self._reader.message(span, ATTRIBUTE, where)
        if sum(size(attribute.get(number)) for number in (4, 7, 8, 9)) > MAX_ATTRIBUTE_BYTES:
            raise self._reader.fault(where, f"attribute above {MAX_ATTRIBUTE_BYTES} bytes")
        for tensor in (*spans(attribute.get(5)), *spans(attribute.get(10))):
            self._tensors.check(tensor, where)
        for tensor in (*spans(attribute.get(22)), *spans(attribute.get(23))):
            self._tensors.check_sparse(tensor, where)
        for kind in (*spans(attribute.get(14)), *spans(attribute.get(15))):
            self._tensors.check_type(kind, where)
        for graph in (*spans(attribute.get(6)), *spans(attribute.get(11))):
            self._graph(graph, body, where, depth + 1)

    def _opsets(self, found: list[Span], where: str) -> None:
        if len(found) > MAX_OPSETS:
            raise self._reader.fault(where, f"more than {MAX_OPSETS} operator sets")
        for span in found:
            domain = self._domain(self._reader.message(span, OPSET, where).get(1))
            if domain not in self._domains:
                raise self._reader.fault(where, f"operator domain {domain[:64]!r} is not known")

    def _entries(self, values: list[int | Span] | None, where: str) -> None:
        for span in spans(values):
            self._reader.message(span, ENTRY, where)

    def _domain(self, values: list[int | Span] | None) -> str:
        """The domain's name; the default one has two."""
        domain = self._reader.text(values)
        return "" if domain == "ai.onnx" else domain
