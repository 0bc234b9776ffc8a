"""Turns the fake's classes into those of one release: what it has not raises AttributeError.

A fake class has, as public names, every name of TensorRT that the fake can do. The vector says
which of them exist in a release, with which signature, and which properties can be set.
"""

from __future__ import annotations

import enum
import inspect
import re


class Absent:
    """A name that this release has not."""

    def __init__(self, owner, name):
        self._text = f"'{owner}' object has no attribute '{name}'"

    def __get__(self, instance, owner):
        raise AttributeError(self._text)

    def __set__(self, instance, value):
        raise AttributeError(self._text)


def public(implementation):
    """The names of TensorRT that a fake class can do: name -> function or property."""
    found = {}
    for kind in reversed(implementation.__mro__):
        if kind in (object, bytes):
            continue
        found |= {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return found


def release_class(implementation, spec, trt):
    """The class as this release has it.

    Raises:
        TypeError: the fake's signature is not the release's.
    """
    name = implementation.__name__
    body = {"_trt": trt, "__module__": "tensorrt"}
    for member, value in public(implementation).items():
        if member in spec["methods"]:
            if inspect.isfunction(value):
                _check(f"{name}.{member}", value, spec["methods"][member])
        elif member not in spec["properties"] and member not in spec.get("attrs", {}):
            body[member] = Absent(name, member)
        elif member in spec["properties"] and not spec["properties"][member]:
            assert isinstance(value, property), member
            body[member] = property(value.fget)
    if spec["init"]:
        _check(f"{name}.__init__", implementation.__init__, spec["init"])
    if not getattr(implementation, "_subclassable", False):
        body["__setattr__"] = _guard(name, spec)
    return type(implementation)(name, (implementation,), body)


def _guard(name, spec):
    def set_attribute(self, attribute, value):
        # pybind11's objects have no dictionary: a misspelt name is an error, not a new attribute.
        if not attribute.startswith("_") and not spec["properties"].get(attribute):
            raise AttributeError(f"'{name}' object has no attribute '{attribute}' that can be set")
        object.__setattr__(self, attribute, value)

    return set_attribute


def parameters(signature):
    """Parameters in pybind11's text of a signature, without `self`: (name, may be left out)."""
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    # Brackets and representations of defaults may hold commas and colons.
    while (flat := re.sub(r"\[[^\[\]]*\]|<[^<>]*>", "", inside)) != inside:
        inside = flat
    parts = [part.strip() for part in inside.split(",") if part.strip()]
    found = [(part.partition(":")[0].partition("=")[0].strip(), "=" in part) for part in parts]
    return [(name, optional) for name, optional in found if name != "self"]


def accepts(signature, names):
    """Whether parameters of these names, in this order, are what a signature asks for."""
    theirs = parameters(signature)
    return [name for name, _ in theirs[: len(names)]] == list(names) and all(
        optional for _, optional in theirs[len(names) :]
    )


def _check(name, function, signatures):
    mine = list(inspect.signature(function).parameters)[1:]
    if not any(accepts(text, mine) for text in signatures):
        raise TypeError(f"the fake's {name}({', '.join(mine)}) is not {' or '.join(signatures)}")


def release_enum(name, members):
    """An enumeration with this release's members and numbers; `int()` of one gives its number."""
    made = enum.Enum(name, members, module="tensorrt")
    made.__int__ = lambda self: self.value
    return made
