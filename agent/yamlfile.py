"""Strict YAML: plain values with the line each came from; duplicate keys and huge files refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from agent.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1_000_000
"""A configuration of hundreds of cameras is far smaller."""

MAX_DEPTH = 20
"""Levels of nesting; the settings have five."""

Key = tuple[str | int, ...]
"""Where a value stands: mapping keys and list indices from the top."""

SCALARS = {
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:str",
}


def read(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """Read a YAML file whose top is a mapping.

    Returns:
        The plain values, and the line (from 1) of every key and list item by its path.

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
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; this is no configuration") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: the top must be a mapping with keys like `cameras:`")
    reader = _Reader(path)
    return reader.value(node, ()), reader.lines


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._scalars = yaml.SafeLoader("")
        self._seen: set[int] = set()
        self.lines: dict[Key, int] = {}

    def value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            # An alias stands for a whole node: a few lines of them can mean gigabytes of values.
            raise ConfigError(f"{self._path}:{line}: YAML aliases (*name) are not supported")
        self._seen.add(id(node))
        if len(key) > MAX_DEPTH:
            raise ConfigError(f"{self._path}:{line}: nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                place: Key = (*key, index)
                self.lines[place] = item.start_mark.line + 1
                items.append(self.value(item, place))
            return items
        if node.tag not in SCALARS:
            # Dates and the like: what was written is what is meant.
            return str(node.value)
        try:
            return self._scalars.construct_object(node, deep=True)
        except (ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"{self._path}:{line}: cannot read {node.value!r}: {error}"
            ) from error

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                raise ConfigError(f"{self._path}:{line}: a key must be a plain word")
            name = str(name_node.value)
            place = (*key, name)
            if name in values:
                dotted = ".".join(map(str, place))
                raise ConfigError(
                    f"{self._path}:{line}: {dotted} is there twice (first in line "
                    f"{self.lines[place]}); rename or remove one"
                )
            self.lines[place] = line
            values[name] = self.value(value_node, place)
        return values
