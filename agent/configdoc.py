"""The reference of all settings as Markdown, made from the settings themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from agent.configtree import inner, sections
from agent.yamlfile import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

BEGIN = "<!-- reference: made by scripts/config-docs from agent/config.py -->\n"
"""Everything behind this line of docs/configuration.md is generated."""

TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "nothing",
    "path": "path",
    "password": "secret text",
}


def reference() -> str:
    """A heading and a table for each section."""
    return "\n".join(line for key, section in sections() for line in _section(dotted(key), section))


def updated(page: str) -> str:
    """A page with its generated part made anew."""
    return f"{page.partition(BEGIN)[0]}{BEGIN}{reference()}\n"


def _section(key: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"\n### {f'`{key}`' if key else 'The top'}\n"
    yield f"{section.__doc__}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        below, named = inner(field.annotation)
        if below is None:
            kind = _type(properties[name])
        else:
            kind = "sections by name" if named else "section"
        meaning = (field.description or "").replace("|", "\\|")
        yield f"| `{name}` | {kind} | {_default(field)} | {meaning} |"


def _type(schema: dict[str, Any]) -> str:
    """What may be written, in words."""
    if "anyOf" in schema:
        kinds = [_type(s) for s in schema["anyOf"] if s.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        count = f"{schema['maxItems']} " if "maxItems" in schema else ""
        item = schema.get("items") or schema["prefixItems"][0]
        return f"list of {count}{_type(item)}s"
    if kind == "object":
        return f"{_type(schema['additionalProperties'])} by name"
    if isinstance(kind, list):
        return " or ".join(TYPES[k] for k in kind)
    return TYPES[schema.get("format", kind)] + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "exclusiveMaximum": "less than",
    }
    said = [f"{word} {schema[name]:,}" for name, word in words.items() if name in schema]
    return "".join(f", {limit.removesuffix('.0')}" for limit in said)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, (BaseModel, dict)):
        return ""
    return f"`{json.dumps(value, default=str)}`".replace('`"', "`").replace('"`', "`")
