"""Fills in `${env:NAME}` and `${file:PATH}`: secrets that no message repeats.

`$${` stands for a plain `${`.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.yamlfile import Key

REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<kind>env|file):(?P<name>[^{}]+)\})?")

MAX_SECRET_BYTES = 65_536
"""A password or a URL is far smaller."""

HIDDEN = "***"


class References:
    """Replaces references and keeps what went wrong.

    Args:
        folder: relative paths of `${file:...}` begin here.
        environ: where `${env:...}` looks.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.problems: list[tuple[Key, str]] = []

    def fill(self, value: Any, key: Key = ()) -> Any:
        """The same values with every reference replaced; one that fails stands as it is."""
        if isinstance(value, dict):
            return {k: self.fill(v, (*key, k)) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v, (*key, i)) for i, v in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return _usable(REFERENCE.sub(self._replace, value))
        except ConfigError as error:
            self.problems.append((key, str(error)))
            return value

    def _replace(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        kind, name = match["kind"], match["name"]
        if kind is None:
            raise ConfigError(
                "`${` begins a reference that is not known; write ${env:NAME}, ${file:/path}, or "
                "$${ for a plain ${"
            )
        return self._variable(name) if kind == "env" else self._file(_usable(name))

    def _variable(self, name: str) -> str:
        if name not in self._environ:
            raise ConfigError(
                f"the environment variable {name!r} is not set; set it for the service, or use "
                "${file:/path}"
            )
        return self._environ[name]

    def _file(self, name: str) -> str:
        path = self._folder / os.path.expanduser(name)  # noqa: PTH111 - Path's raises for ~nobody
        try:
            # Opening a FIFO would wait for a writer.
            if not stat.S_ISREG(path.stat().st_mode):
                raise ConfigError(f"{path} is not a regular file; give a file with the secret")
            with path.open("rb") as file:
                raw = file.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"the file {path} cannot be read: {error.strerror}; make it, and readable for the "
                "agent's user"
            ) from error
        if len(raw) > MAX_SECRET_BYTES:
            raise ConfigError(f"the file {path} is larger than {MAX_SECRET_BYTES} bytes")
        try:
            return raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            # Without `from`: the decoder's error holds the content.
            raise ConfigError(f"the file {path} is not UTF-8 text") from None


def hide(text: str) -> str:
    """A text of the file with `***` in place of every reference."""
    return REFERENCE.sub(lambda match: "${" if match["kind"] is None else HIDDEN, text)


def has_reference(text: str) -> bool:
    """Whether a part of this text comes from elsewhere."""
    return any(match["kind"] for match in REFERENCE.finditer(text))


def _usable(text: str) -> str:
    """The text itself.

    Raises:
        ConfigError: the system's calls do not take such a text.
    """
    if "\0" in text:
        raise ConfigError("has a NUL character in it; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("has bytes in it that are not UTF-8 text; replace them") from None
    return text
