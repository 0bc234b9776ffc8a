"""Says in plain words what is wrong with a configuration and what to do. Never repeats a value."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from agent import config, configcamera, configmqtt
from agent.configtree import field_at, section_at, sections
from agent.yamlfile import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

    from agent.yamlfile import Key

NUMBER_WITH_UNIT = re.compile(r"\s*[-+]?\d+([.,]\d+)?\s*[a-zA-Z%µ]+\s*")

UNITS = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_hz": "times a second",
    "_bytes": "bytes",
}
"""What the end of a key says of its number."""

PATTERNS = {
    config.NAME_PATTERN: "must be a name: letters, digits, - and _, at most 64, a letter or digit "
    "first",
    configmqtt.PREFIX_PATTERN: "must be topic levels joined by /, without + or #, like vigia/v1",
    configcamera.FOURCC_PATTERN: "must be the four characters of a pixel format, like MJPG",
    configmqtt.HOST_PATTERN: "must be a host name or address alone, without mqtt:// and port",
}

WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of names",
    "model": "a section with settings of its own",
}
"""First word of pydantic's kinds of error, and what is wanted."""

BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}

EMPTY_SECTION = "is empty; write its settings below it, `{}` for the defaults, or remove the line"


def problem(error: ErrorDetails, values: Mapping[str, Any]) -> tuple[Key, str]:
    """Where and what, for one mistake that pydantic found.

    Args:
        error: what pydantic says.
        values: what it was given.
    """
    key = _key(error, values)
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        return key, f"unknown key{_hint(key)}"
    if kind == "missing":
        return key, f"is missing; add it{_about(key)}"
    if kind == "value_error":
        return key, error["msg"].removeprefix("Value error, ")
    if kind == "unknown_model":
        return (*key, *context["key"]), error["msg"]
    if error.get("input") is None:
        return key, EMPTY_SECTION if section_at(key) else f"is empty; it {_must(kind, context)}"
    help_ = _about(key) if kind in {"list_type", "dict_type"} else _unit(key, kind, error["input"])
    return key, _must(kind, context) + help_


def empty_sections(values: Any, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """Sections that are written but empty, like a `tls:` that would mean no TLS."""
    if values is None and key and section_at(key):
        yield key, EMPTY_SECTION
    if isinstance(values, dict):
        for name, value in values.items():
            yield from empty_sections(value, (*key, name))


def _key(error: ErrorDetails, values: Any) -> Key:
    """Pydantic's place without its own marks, like the member of a union that was tried."""
    key: Key = ()
    for part in error["loc"]:
        inside = (isinstance(values, dict) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        )
        if inside:
            key = (*key, part)
            values = values[part]
        elif error["type"] == "missing":
            return (*key, part)
    return key


def _must(kind: str, context: Mapping[str, Any]) -> str:
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"must be {words} {context[name]:g}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return PATTERNS[context["pattern"]]
    if kind in ("too_short", "string_too_short"):
        return f"must have at least {context['min_length']}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {context['max_length']}"
    return f"must be {WANTED[kind.partition('_')[0]]}"


def _unit(key: Key, kind: str, given: object) -> str:
    """Help for `5s` where a number is wanted."""
    numeric = kind.startswith(("int", "float"))
    if not numeric or not isinstance(given, str) or not NUMBER_WITH_UNIT.fullmatch(given):
        return ""
    units = next((words for end, words in UNITS.items() if str(key[-1]).endswith(end)), None)
    return f"{f' of {units}' if units else ''}, written without a unit"


def _about(key: Key) -> str:
    field = field_at(key)
    section = section_at(key)
    if section is not None:
        needed = [n for n, f in section.model_fields.items() if f.is_required()]
        return f" with at least {', '.join(needed)} below it" if needed else ""
    return f": {field.description}" if field is not None and field.description else ""


def _hint(key: Key) -> str:
    """The known key that is meant, if any is like it."""
    section = section_at(key[:-1])
    if section is None:
        return "; remove it"
    known = list(section.model_fields)
    wrong = str(key[-1])
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    # A forgotten unit is the commonest slip: `stall` for `stall_timeout_s`.
    near = near or [name for name in known if name.startswith(wrong) or wrong.startswith(name)][:1]
    elsewhere = [(*place, wrong) for place, other in sections() if wrong in other.model_fields]
    if elsewhere:
        return f"; you may mean {' or '.join(map(dotted, elsewhere))}"
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here are {', '.join(sorted(known))}"
