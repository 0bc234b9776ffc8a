"""What tensors and declared shapes of an ONNX file may be: as large as their data, and in place."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from agent.bundle.onnxschema import (
    BITS,
    DIMENSION,
    ELEMENT_TYPE,
    ENTRY,
    EXTERNAL,
    MAP_TYPE,
    SHAPE,
    SPARSE,
    STRING,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from agent.bundle.protowire import number, size, spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.bundle.protowire import Message, Reader, Span

MAX_TENSORS = 200_000
MAX_ELEMENTS = 2**31 - 1
"""Of a tensor: more, no backend can address."""

MAX_RANK = 64
MAX_TYPE_DEPTH = 4
"""Sequences of optionals of tensors and the like."""

DENSEST = 4
"""Elements that a byte of typed data can hold at the most: those of 2 bits."""

EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
DECIMAL = re.compile(r"[0-9]{1,19}")

TYPED_DATA = (4, 5, 6, 7, 10, 11)
RAW_DATA = 9


class Tensors:
    """Checks the tensors of one file.

    Args:
        reader: of the file.
        beside: bytes of the files that lie beside it, by name: what external data may name.
    """

    def __init__(self, reader: Reader, beside: Mapping[str, int]) -> None:
        self._reader = reader
        self._beside = beside
        self._count = 0

    def check(self, span: Span, where: str) -> None:
        """See that a TensorProto is no larger than its data.

        Raises:
            BundleError: it is, or its data lie where they must not.
        """
        self._count += 1
        if self._count > MAX_TENSORS:
            raise self._reader.fault(where, f"more than {MAX_TENSORS} tensors")
        tensor = self._reader.message(span, TENSOR, where)
        name = self._reader.text(tensor.get(8))
        where = f"{where} {name[:64]!r}" if name else where
        kind = number(tensor.get(2))
        elements = self._elements(tensor.get(1, []), where)
        if kind not in BITS and kind != STRING:
            raise self._reader.fault(where, f"data type {kind} is not known")
        external = spans(tensor.get(13))
        if number(tensor.get(14)) == EXTERNAL:
            self._check_external(tensor, external, elements, where)
        elif external or number(tensor.get(14)):
            raise self._reader.fault(where, "data in another file, but not said to be external")
        elif RAW_DATA in tensor:
            self._check_raw(tensor, elements, where)
        else:
            self._check_typed(tensor, elements, where)

    def check_sparse(self, span: Span, where: str) -> None:
        """See that a SparseTensorProto is no larger than it may be.

        Raises:
            BundleError: it is.
        """
        tensor = self._reader.message(span, SPARSE, where)
        self._elements(tensor.get(3, []), where)
        for part in (*spans(tensor.get(1)), *spans(tensor.get(2))):
            self.check(part, where)

    def check_value(self, span: Span, where: str) -> None:
        """See that a ValueInfoProto declares no absurd shape.

        Raises:
            BundleError: it does.
        """
        for kind in spans(self._reader.message(span, VALUE, where).get(2)):
            self.check_type(kind, where)

    def check_type(self, span: Span, where: str, depth: int = 0) -> None:
        """See that a TypeProto is shallow, and declares no absurd shape.

        Raises:
            BundleError: it is not.
        """
        if depth >= MAX_TYPE_DEPTH:
            raise self._reader.fault(where, f"a type nested deeper than {MAX_TYPE_DEPTH} levels")
        kind = self._reader.message(span, TYPE, where)
        for tensor in (*spans(kind.get(1)), *spans(kind.get(8))):
            fields = self._reader.message(tensor, TENSOR_TYPE, where)
            for shape in spans(fields.get(2)):
                self._check_shape(shape, where)
        for holder, schema, field in ((4, ELEMENT_TYPE, 1), (5, MAP_TYPE, 2), (9, ELEMENT_TYPE, 1)):
            for inner in spans(kind.get(holder)):
                for element in spans(self._reader.message(inner, schema, where).get(field)):
                    self.check_type(element, where, depth + 1)

    def _check_shape(self, span: Span, where: str) -> None:
        dims = spans(self._reader.message(span, SHAPE, where).get(1))
        sizes = [self._reader.message(d, DIMENSION, where).get(1, [1]) for d in dims]
        # A size of 0 or below is how some exporters say that it is open.
        known = [n for n in self._reader.numbers([s for (s,) in sizes], where, MAX_RANK) if n > 0]
        if math.prod(known) > MAX_ELEMENTS:
            raise self._reader.fault(where, f"a shape of more than {MAX_ELEMENTS} elements")

    def _elements(self, dims: list[int | Span], where: str) -> int:
        sizes = self._reader.numbers(dims, where, MAX_RANK)
        if any(n < 0 for n in sizes):
            raise self._reader.fault(where, "a negative size")
        elements = math.prod(sizes)
        # Also without its zeros: code that multiplies from the left must not overflow.
        if math.prod(n for n in sizes if n) > MAX_ELEMENTS:
            raise self._reader.fault(where, f"more than {MAX_ELEMENTS} elements")
        return elements

    def _check_raw(self, tensor: Message, elements: int, where: str) -> None:
        bits = BITS.get(number(tensor.get(2)))
        held = size(tensor[RAW_DATA])
        if bits is None or any(field in tensor for field in TYPED_DATA):
            raise self._reader.fault(where, "raw data of texts, or beside other data")
        if held != -(-elements * bits // 8):
            raise self._reader.fault(where, f"{elements} elements, but {held} bytes of data")

    def _check_typed(self, tensor: Message, elements: int, where: str) -> None:
        held = sum(size(tensor.get(field)) for field in TYPED_DATA)
        if number(tensor.get(2)) == STRING:
            held = len(tensor.get(6, []))
        if elements > held * DENSEST:
            raise self._reader.fault(where, f"{elements} elements, but {held} bytes of data")

    def _check_external(
        self, tensor: Message, entries: list[Span], elements: int, where: str
    ) -> None:
        if RAW_DATA in tensor or any(field in tensor for field in TYPED_DATA):
            raise self._reader.fault(where, "external data, but data of its own too")
        values: dict[str, str] = {}
        for span in entries:
            entry = self._reader.message(span, ENTRY, where)
            key = self._reader.text(entry.get(1))
            if key not in EXTERNAL_KEYS or key in values:
                raise self._reader.fault(where, f"external data with the key {key[:64]!r}")
            values[key] = self._reader.text(entry.get(2))
        location = values.get("location", "")
        if location not in self._beside:
            raise self._reader.fault(
                where,
                f"external data in {location[:64]!r}, which is no file of the bundle beside it",
            )
        offset, length = (
            self._decimal(values, "offset", where),
            self._decimal(values, "length", where),
        )
        bits = BITS.get(number(tensor.get(2)))
        if bits is None:
            raise self._reader.fault(where, "external data of texts")
        needed = -(-elements * bits // 8)
        if length not in (None, needed):
            raise self._reader.fault(where, f"{needed} bytes of external data, not {length}")
        if (offset or 0) + needed > self._beside[location]:
            raise self._reader.fault(where, f"external data beyond the end of {location}")

    def _decimal(self, values: Mapping[str, str], key: str, where: str) -> int | None:
        text = values.get(key)
        if text is None:
            return None
        if not DECIMAL.fullmatch(text):
            raise self._reader.fault(where, f"external data whose {key} is no number")
        return int(text)
