"""Finds its way through the settings: which section and which setting a key leads to."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from agent.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from agent.yamlfile import Key

NAME = "NAME"
"""Stands for the name of a camera or a model in keys that mean all of them."""


def section_at(key: Key) -> type[BaseModel] | None:
    """The section that a key leads to; None for a setting, an unknown key or a mapping by name."""
    section: type[BaseModel] = Config
    parts = list(key)
    while parts:
        field = section.model_fields.get(str(parts.pop(0)))
        if field is None:
            return None
        below, named = inner(field.annotation)
        if below is None or (named and not parts):
            return None
        if named:
            parts.pop(0)
        section = below
    return section


def field_at(key: Key) -> FieldInfo | None:
    """The setting that a key leads to, or None."""
    section = section_at(key[:-1]) if key else None
    return None if section is None else section.model_fields.get(str(key[-1]))


def sections(key: Key = ()) -> Iterator[tuple[Key, type[BaseModel]]]:
    """Every section with its key, `NAME` for names, from the top."""
    section = section_at(key)
    assert section is not None
    yield key, section
    for name, field in section.model_fields.items():
        below, named = inner(field.annotation)
        if below is not None:
            yield from sections((*key, name, NAME) if named else (*key, name))


def inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section class inside an annotation, and whether it is a mapping by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    named = typing.get_origin(annotation) is dict
    for part in typing.get_args(annotation):
        section, _ = inner(part)
        if section is not None:
            return section, named
    return None, False
