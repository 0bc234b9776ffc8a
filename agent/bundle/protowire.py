"""Reads Protocol Buffers messages without making anything of them: where each field lies, no more.

A parser of the whole message would have allocated before it could be asked whether it should, and a
message of few bytes can become very large: two bytes make a node. Here every field is looked at in
place, at most `MAX_FIELDS` of them.

Stricter than the format, so that what is checked is what a parser sees: unknown fields, groups, and
a second value of what can have only one are refused (a parser would skip, skip, and merge them).
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

Span = tuple[int, int]
"""Begin and end of a value in the file."""

Schema = dict[int, str]
"""Field number -> kind: `i` whole number, `f` and `d` 4 and 8 bytes, `t` text, `b` bytes or
message. A capital letter means any number of them; numbers may then be packed."""

Message = dict[int, list["int | Span"]]
"""Field number -> its values in order; packed numbers are one span."""

MAX_FIELDS = 2**21
"""Of a file. A detector has some ten thousand; this many take a few seconds."""

MAX_TEXT_BYTES = 2**20

MAX_VARINT_BYTES = 10
VARINT, EIGHT, LENGTH, FOUR = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, which ONNX never had."""

WIRES = {"i": VARINT, "f": FOUR, "d": EIGHT, "t": LENGTH, "b": LENGTH}
NUMBERS = "IFD"
U64 = 2**64
I64 = 2**63


class Reader:
    """Reads the messages of one file.

    Args:
        data: the file.
        what: how messages call it.
    """

    def __init__(self, data: mmap | bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._left = MAX_FIELDS

    def message(self, span: Span, schema: Mapping[int, str], where: str) -> Message:
        """The fields of the message that lies at `span`.

        Raises:
            BundleError: it is not one of this schema, or the file has too many fields.
        """
        at, end = span
        found: Message = {}
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise BundleError(f"{self._what} has more than {MAX_FIELDS} fields")
            key, at = self.varint(at, end, where)
            number, wire = key >> 3, key & 7
            kind = schema.get(number, "")
            value: int | Span
            if wire == VARINT:
                value, at = self.varint(at, end, where)
            else:
                begin, at = self._extent(wire, at, end, where)
                value = (begin, at)
            lower = kind.lower()
            if not kind or (wire != WIRES[lower] and not (kind in NUMBERS and wire == LENGTH)):
                raise self.fault(where, f"field {number} is not known, or of another type")
            if lower == "t" and isinstance(value, tuple) and value[1] - value[0] > MAX_TEXT_BYTES:
                raise self.fault(where, f"field {number} has more than {MAX_TEXT_BYTES} bytes")
            values = found.setdefault(number, [])
            if values and kind == lower:
                raise self.fault(where, f"field {number} stands twice")
            values.append(value)
        return found

    def varint(self, at: int, end: int, where: str) -> tuple[int, int]:
        """The unsigned number at `at`, and where it ends.

        Raises:
            BundleError: it does not end before `end`, or not after 10 bytes.
        """
        data, value = self._data, 0
        for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
            if at >= end:
                break
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says whether another byte follows
                return value % U64, at
        raise self.fault(where, "it is damaged or cut")

    def numbers(self, values: list[int | Span], where: str, limit: int) -> list[int]:
        """Signed whole numbers, packed or not; at most `limit`.

        Raises:
            BundleError: there are more, or they are damaged.
        """
        found: list[int] = []
        for value in values:
            if isinstance(value, int):
                found.append(value)
            else:
                at, end = value
                while at < end and len(found) <= limit:
                    number, at = self.varint(at, end, where)
                    found.append(number)
            if len(found) > limit:
                raise self.fault(where, f"more than {limit} numbers")
        return [number - U64 if number >= I64 else number for number in found]

    def text(self, values: list[int | Span] | None) -> str:
        """A text, of a field that has at most one; "" if there is none.

        What is not UTF-8 is shown as it can be: no name that counts has such bytes.
        """
        if not values:
            return ""
        (span,) = values
        assert isinstance(span, tuple)
        return self._data[span[0] : span[1]].decode("utf-8", "backslashreplace")

    def fault(self, where: str, what: str) -> BundleError:
        """An error that says where."""
        return BundleError(f"{self._what}: {where}: {what}; it is not used")

    def _extent(self, wire: int, at: int, end: int, where: str) -> Span:
        if wire == LENGTH:
            length, at = self.varint(at, end, where)
        elif wire in (FOUR, EIGHT):
            length = 4 if wire == FOUR else 8
        else:
            raise self.fault(where, "it is no ONNX file, or it is damaged")
        if length > end - at:
            raise self.fault(where, "it is damaged or cut")
        return at, at + length


def spans(values: list[int | Span] | None) -> list[Span]:
    """The values of a field that has bytes, texts or messages."""
    return [value for value in values or () if isinstance(value, tuple)]


def number(values: list[int | Span] | None) -> int:
    """A whole number, of a field that has at most one; 0 if there is none."""
    (value,) = values or [0]
    assert isinstance(value, int)
    return value


def size(values: list[int | Span] | None) -> int:
    """Bytes of all values of a field; a number that is not packed counts 8."""
    return sum(v[1] - v[0] if isinstance(v, tuple) else 8 for v in values or ())
