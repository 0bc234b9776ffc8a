"""Strict YAML: texts with the line each stands in.

The setting decides the type of a value, not its looks: every scalar is given as text, or None if
nothing or `null` is written. So a camera `0`, a password `0123` and a class called `no` are what
they look like. Anchors, aliases and tags are refused: a few lines of them can mean gigabytes, or
objects. No message repeats a value, which may be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 262_144
"""A configuration of a hundred cameras is a tenth of it."""

MAX_DEPTH = 20
"""Levels of nesting; the settings have five."""

NULLS = frozenset({"", "~", "null", "Null", "NULL"})

QUOTED = re.compile(r" '[^'<][^']{3,}'")
"""Pieces of the file in a message of the YAML library."""

Key = tuple[str | int, ...]
"""Where a value stands: mapping keys and list indices from the top."""


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        values: mappings, lists, texts and None.
        lines: the line, from 1, of every key and list item.
        problems: where and what, for mistakes that do not hinder reading on.
    """

    values: dict[str, Any]
    lines: dict[Key, int]
    problems: list[tuple[Key, str]] = field(default_factory=list)


def read(path: Path) -> Document:
    """Read a YAML file whose top is a mapping.

    Raises:
        ConfigError: the file cannot be read or is not such YAML; the message carries file and line.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; give another file with -c"
        ) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes; this is no configuration")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from error
    return _Reader(path, text).document()


def dotted(key: Key) -> str:
    """A key as people write it: `cameras.door.fps`."""
    return ".".join(part if part.isprintable() else repr(part) for part in map(str, key))


class _Reader:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._events = self._parse(text)
        self._lines: dict[Key, int] = {}
        self._problems: list[tuple[Key, str]] = []

    def document(self) -> Document:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise ConfigError(f"{self._path}: is empty; it needs at least `mqtt:` and `cameras:`")
        values = self._value(next(self._events), ())
        next(self._events)  # the document's end
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            self._refuse(more, "a second document begins here; keep one and remove the `---`")
        if not isinstance(values, dict):
            raise ConfigError(f"{self._path}: the top must be a mapping with keys like `cameras:`")
        return Document(values, self._lines, self._problems)

    def _parse(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(
                f"{self._path}:{line}: not valid YAML: a control character; remove it"
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            problem = QUOTED.sub("", error.problem or "cannot be parsed")
            raise ConfigError(
                f"{self._path}:{line}: not valid YAML: {problem}; check indentation, colons and "
                "brackets, and put texts with special characters in quotes"
            ) from error

    def _refuse(self, event: yaml.Event, what: str) -> None:
        raise ConfigError(f"{self._path}:{_line(event)}: {what}")

    def _value(self, event: yaml.Event, key: Key) -> Any:
        if getattr(event, "anchor", None) is not None:
            self._refuse(
                event,
                "YAML anchors and aliases (& and *) are not supported; a text that begins with & "
                "or * must stand in quotes",
            )
        if getattr(event, "tag", None) is not None:
            self._refuse(
                event,
                "YAML tags (!name) are not supported; a text that begins with ! must stand in "
                "quotes",
            )
        if len(key) > MAX_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(key)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(key)
        assert isinstance(event, yaml.ScalarEvent)
        plain = event.implicit[0]
        return None if plain and event.value in NULLS else event.value

    def _sequence(self, key: Key) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            place = (*key, len(values))
            self._lines[place] = _line(event)
            values.append(self._value(event, place))
        return values

    def _mapping(self, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, "a key must be a plain word")
            name = str(self._value(event, key) or "")
            place = (*key, name)
            if name in values:
                self._problems.append(
                    (place, f"is there twice, again in line {line}; rename or remove one")
                )
                self._value(next(self._events), (*key, f"{name} (again)"))
                continue
            self._lines[place] = line
            values[name] = self._value(next(self._events), place)
        return values


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return 1 if mark is None else mark.line + 1
